"""How results are printed: tables, plain lines, JSON, CSV."""
