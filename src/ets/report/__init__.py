"""What a drill promised, what was measured, and how to show it: promises, reads, windows, a
timeline picture, one HTML page, one JSON file. Pure: records in, text out. May import
``ets.errors`` only.
"""
