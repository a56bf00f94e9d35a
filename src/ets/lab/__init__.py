"""A whole site on one machine, from the same site file and through the same code: topology,
servers, stations, faults, drills. May import every room but ``cli``, ``agent``.

The interface, for tests, the demo and ``ets lab``::

    from ets.lab.lab import Lab

    with Lab.up(Path("examples/pair.toml"), name="t1", images=store, events=print) as lab:
        alpha = lab.server("alpha")                 # ets.lab.server.LabServer (in a container)
        alpha.host.run(["systemctl", "is-system-running"])      # an ets.host.transport.Host
        ws01 = lab.start_station("ws01")            # BIOS, virtio; firmware="uefi", nic="e1000"
        ws01.wait_login(180)                        # Deadline passed: DeadlinePassed
        with lab.dhcp_capture() as wire:            # ets.lab.wire.Capture
            lab.inject("kill", "alpha")             # a fault by name: ets.lab.faults
        for line in ws01.probe_lines(): ...         # what ets-probe wrote, as JSON objects
        lab.heal("alpha")
    # everything is gone here; after SIGKILL the next Lab.up of any name cleans up

    with Lab.up(site, name="t2", images=store, blank=["beta"]) as lab:
        beta = lab.machine("beta")                  # ets.lab.machine.MachineServer, switched off
        beta.start(boot="once", firmware="uefi")    # from the network now, from its disk later
        beta.machine.wait_event("installed", 900)   # what it said on its event port
        beta.wait_booted(300)                       # from here on a LabServer as the others

    Lab.attach("t1")       # the lab of that name that another process brought up
    lab.detach()           # leave it running when the context ends

Pieces that are useful alone:

* ``tree.server_tree(packages)``: the Debian tree of a server; ``tree.server_layers``: with ETS'
  Python dependencies above it.
* ``daemon.ServerRoot``: a throw-away copy of that tree in which a test runs single real daemons,
  in a network namespace of its choice, without booting anything::

    with Namespace("ets-t1-x") as net, ServerRoot(packages) as root:
        root.write("/etc/kea/kea-dhcp4.conf", config)
        kea = root.start(["kea-dhcp4", "-c", "/etc/kea/kea-dhcp4.conf"], net=net)

* ``topology.Namespace``: a network namespace that is removed at the end.
* ``wire``: DHCP exchanges seen on a bridge, bytes per port.
"""
