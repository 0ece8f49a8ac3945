"""EC2's filters, one module per kind of row: names as AWS documents them, fields as search.py makes them.

A filter about something that no row can have (an outpost, a product code) is known and matches nothing, or matches the
one value that every row shows. Owns names and columns; refuses to hold logic.
"""
