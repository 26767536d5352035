"""Tests of what runs on AWS, and of the template that puts it there: `make test-aws`."""

from __future__ import annotations

from tests.services.crate import cratedb  # noqa: F401 - a fixture
