"""Rehearsals of failure on a lab: a drill is a short list of steps (``pair.py``), a stage that
brings up the site and watches it (``stage.py``, ``watch.py``), and promises made from what was
seen (``verdict.py`` with ``ets.report``). May import what the lab may, and ``ets.report``.
"""
