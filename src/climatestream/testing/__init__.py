"""Contract suites that every adapter passes, faulty doubles, and builders of data for tests.

`rows` and `stores` hold the builders and doubles of stores. The suites need the packages of the
`dev` extra; nothing here is imported by the rest of climatestream.
"""
