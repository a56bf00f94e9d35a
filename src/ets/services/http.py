"""HTTP on the stations' side: boot scripts, kernels, boot programs and the stations' reports.

nginx serves files itself and asks the agent only for what changes. With the agent gone, boot
scripts come from the files that it wrote last, so known stations go on booting.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath

from ets import paths
from ets.plan.desired import Command, Desired, Directory, File, Probe, Unit
from ets.services._units import LASTING
from ets.site.model import Problem, Server, Site

NAME = "http"

#: Debian's own file, replaced: its ``sites-enabled/default`` would answer on every address
CONFIG = "/etc/nginx/nginx.conf"
UNIT = "nginx.service"
DROPIN = f"/etc/systemd/system/{UNIT}.d/ets.conf"

_CONFIG = """\
# Sites of your own belong into /etc/nginx/conf.d; sites-enabled is not read.
user www-data;
worker_processes auto;
worker_rlimit_nofile 16384;
pid /run/nginx.pid;
error_log /var/log/nginx/error.log warn;
include /etc/nginx/modules-enabled/*.conf;

events {{
    worker_connections 4096;
}}

http {{
    include /etc/nginx/mime.types;
    default_type application/octet-stream;
    charset utf-8;
    access_log /var/log/nginx/access.log;
    log_not_found off;
    server_tokens off;
    sendfile on;
    tcp_nopush on;

    # The stations' network is hostile ground: whoever is slow or greedy is cut off.
    client_header_timeout 5s;
    client_body_timeout 5s;
    send_timeout 10s;
    keepalive_timeout 15s;
    reset_timedout_connection on;
    client_max_body_size {body};
    client_body_buffer_size 16k;
    large_client_header_buffers 4 4k;
    limit_conn_zone $binary_remote_addr zone=connections:4m;
    limit_conn connections 20;
    limit_conn_log_level info;
    limit_req_zone $binary_remote_addr zone=scripts:4m rate=10r/s;
    limit_req_zone $binary_remote_addr zone=reports:4m rate=1r/s;
    limit_req_zone $binary_remote_addr zone=joins:1m rate=2r/s;
    limit_req_log_level info;
    limit_req_status 429;

    proxy_connect_timeout 1s;
    proxy_send_timeout 1s;
    proxy_read_timeout 1s;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $host;
    proxy_set_header X-Real-IP $remote_addr;

    include /etc/nginx/conf.d/*.conf;

    server {{
        listen {address}:{port} default_server backlog=1024;
        server_name _;

        location = /alive {{
            access_log off;
            default_type text/plain;
            return 200 "{name}\\n";
        }}

        location ~ "^/boot/[0-9a-f]{{2}}(-[0-9a-f]{{2}}){{5}}\\.ipxe$" {{
            limit_except GET {{ deny all; }}
            limit_req zone=scripts burst=20 nodelay;
            proxy_intercept_errors on;
            error_page 500 502 503 504 = @written;
            proxy_pass http://{agent};
        }}
        # The agent does not answer: what it wrote last, or a script that asks every server again.
        location @written {{
            root {state};
            default_type text/plain;
            try_files $uri /boot/default.ipxe =404;
        }}

        location ~ "^/images/([0-9a-f]{{64}})/(vmlinuz|initrd\\.img)$" {{
            limit_except GET {{ deny all; }}
            alias {store}/$1/$2;
        }}

        # Boot programs from Debian's package, or put beside the TFTP server's by hand.
        location ~ "^/ipxe/([A-Za-z0-9][A-Za-z0-9._-]*)$" {{
            limit_except GET {{ deny all; }}
            root /;
            try_files /usr/lib/ipxe/$1 /srv/tftp/$1 =404;
        }}

        location = /api/station/report {{
            access_log off;
            limit_except POST {{ deny all; }}
            limit_req zone=reports burst=10 nodelay;
            proxy_pass http://{agent};
        }}
        location /api/station/ {{
            limit_except GET {{ deny all; }}
            limit_req zone=scripts burst=20 nodelay;
            proxy_pass http://{agent};
        }}

        # Machines that want to become servers; see ets.clone.protocol.
        location ~ "^/api/join/(open|hello|ask|report)$" {{
            limit_except POST {{ deny all; }}
            limit_req zone=joins burst=20 nodelay;
            client_max_body_size {question};
            client_body_buffer_size {question};
            proxy_read_timeout 5s;
            proxy_pass http://{agent};
        }}

        location / {{
            return 404;
        }}
    }}
}}
"""


def enabled(site: Site, server: Server) -> bool:
    """Every server: each station may ask each of them."""
    return True


def check(site: Site) -> Iterator[Problem]:
    """Nothing in a site file is about HTTP alone."""
    return iter(())


def desired(site: Site, server: Server) -> Desired:
    """nginx on the stations' address alone."""
    config = _CONFIG.format(
        body="8k",
        question="32k",
        address=server.stations,
        port=paths.PORT_HTTP,
        name=server.name,
        agent=f"127.0.0.1:{paths.PORT_AGENT_LOCAL}",
        state=paths.STATE,
        store=paths.IMAGES / "store",
    )
    return Desired(
        packages=("ipxe", "nginx"),
        directories=(Directory(str(paths.STATE)), Directory(str(paths.BOOT_SCRIPTS))),
        files=(File(CONFIG, config.encode()), File(DROPIN, LASTING)),
        units=(Unit(UNIT, restart_on=(CONFIG, DROPIN)),),
    )


def validators(root: PurePath) -> list[Command]:
    """nginx' own check."""
    argv = ("nginx", "-t", "-q", "-c", str(root / CONFIG.removeprefix("/")))
    return [Command(argv, "nginx accepts its configuration")]


def probes(site: Site, server: Server) -> list[Probe]:
    """It answers where the stations ask."""
    address, port = str(server.stations), paths.PORT_HTTP
    return [
        Probe("nginx answers the stations", "http", address, port, "/alive"),
        Probe("boot programs can be fetched by HTTP", "http", address, port, "/ipxe/snponly.efi"),
    ]
