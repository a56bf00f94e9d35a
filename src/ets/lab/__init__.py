"""A whole site on one machine, from the same site file and through the same code: topology,
servers, stations, faults, drills. May import every room but ``cli``, ``agent``.
"""
