"""What runs the pages of docs/ notices a page that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import howto


def page(folder: Path, text: str) -> Path:
    file = folder / "page.md"
    file.write_text(text)
    return file


PAGE = """
```bash
NAME=world
echo "hello $NAME, $(date)"
echo twice > file
```

```text
hello world, ...
```

Some words.

```bash
cat file
```

```text
twice
```

```python
not run
```
"""


def test_a_page_that_is_right_passes(tmp_path: Path) -> None:
    """One shell runs all its blocks."""
    howto.run(page(tmp_path, PAGE), tmp_path)
    howto.run(page(tmp_path, PAGE.replace("world, ", "moon, ")), tmp_path, {"world": "moon"})


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ("cat file", "cat no-file", "no-file"),
        ("twice\n```\n\n```python", "once\n```\n\n```python", "'once' is not printed"),
        ("echo twice", "false; echo twice", "failed"),
    ],
)
def test_a_page_that_is_wrong_fails(tmp_path: Path, right: str, wrong: str, told: str) -> None:
    assert right in PAGE
    with pytest.raises(AssertionError, match=told):
        howto.run(page(tmp_path, PAGE.replace(right, wrong)), tmp_path)
