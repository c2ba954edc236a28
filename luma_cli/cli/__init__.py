"""The `luma` command line."""
