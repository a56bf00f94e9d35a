"""The shape of a site file: which tables and keys there are, and what each one may hold.

This is the boundary: pydantic models with unknown keys refused and no silent conversion. Every
key is optional *here*, so that a file with a mistake in one key is still looked at as a whole;
``REQUIRED`` says which keys a table must have, and ``ets.site.check`` reports the missing ones.
What the keys mean together is checked there too.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from ets.site.values import (
    Address,
    Compression,
    Domain,
    Excluded,
    Interface,
    Kernel,
    KernelArg,
    Label,
    Lease,
    Mac,
    Mode,
    Package,
    Range,
    Resolver,
    Source,
    Subnet,
    Target,
    TimeSource,
    Weight,
    Zone,
)


class Table(BaseModel):
    """A table of the site file. Strict: no key but the declared ones, no conversion of types."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, arbitrary_types_allowed=True
    )
    REQUIRED: ClassVar[tuple[str, ...]] = ()


class SiteTable(Table):
    """What the site is called and where it is."""

    REQUIRED = ("name", "domain")
    name: Label | None = Field(None, description="A short name for the site.")
    domain: Domain | None = Field(None, description="The DNS domain of servers and stations.")
    timezone: Zone | None = Field(
        "Etc/UTC", description="A zone of the tz database; Etc/UTC when absent."
    )


class NetworkTable(Table):
    """One of the servers' sides."""

    REQUIRED = ("interface", "subnet")
    interface: Interface | None = Field(
        None, description="The network card, by the same name on every server."
    )
    subnet: Subnet | None = Field(None, description="The network with its prefix length.")
    gateway: Address | None = Field(
        None, description="The router on this network, where there is one."
    )


class StationsNetworkTable(NetworkTable):
    """The stations' side, from which their addresses come."""

    known: Range | None = Field(
        None, description="Addresses for known stations that are given none."
    )
    guests: Range | None = Field(
        None, description="Addresses for unknown stations; cut into one slice per server."
    )


class NetworksTable(Table):
    """The networks of the site. Only the stations' one must exist."""

    REQUIRED = ("stations",)
    lan: NetworkTable | None = Field(None, description="The LAN, the servers' side to the house.")
    stations: StationsNetworkTable | None = Field(None, description="The stations' network.")
    compute: NetworkTable | None = Field(None, description="The compute array's network.")


class DnsTable(Table):
    """Name resolution."""

    servers: list[Resolver] | None = Field(
        None, max_length=8, description="Resolvers, for servers and stations."
    )


class TimeTable(Table):
    """Time."""

    servers: list[TimeSource] | None = Field(
        None, max_length=16, description="NTP servers, by name or address."
    )


class ServerTable(Table):
    """One terminal server."""

    REQUIRED = ("name", "stations")
    name: Label | None = Field(None, description="Its host name.")
    weight: Weight | None = Field(
        1.0, description="Its share of the stations, relative to the other servers'."
    )
    lan: Address | None = Field(None, description="Its address on the LAN.")
    stations: Address | None = Field(None, description="Its address on the stations' network.")
    compute: Address | None = Field(None, description="Its address on the compute array's network.")
    mac: Mac | None = Field(
        None, description="Its network card on the stations' network, for joins by network boot."
    )


class StationTable(Table):
    """One known station."""

    REQUIRED = ("mac", "name")
    mac: Mac | None = Field(None, description="Its network card's address.")
    name: Label | None = Field(None, description="Its host name.")
    address: Address | None = Field(
        None, description="Its address; computed from its MAC when absent."
    )
    image: Label | None = Field(
        None, description="The image it boots; the default one when absent."
    )


class StationsTable(Table):
    """What holds for all stations, and the known ones."""

    REQUIRED = ("image",)
    image: Label | None = Field(
        None, description="The image that stations boot when they name no other."
    )
    guests: bool | None = Field(True, description="Whether unknown stations are served.")
    lease: Lease | None = Field(3600, description="How long an address is lent, in seconds.")
    kernel_args: list[KernelArg] | None = Field(
        None, max_length=32, description="More arguments for the stations' kernel."
    )
    known: list[StationTable] | None = Field(
        None, max_length=65536, description="The known stations."
    )


class FileTable(Table):
    """A file that is copied into an image."""

    REQUIRED = ("source", "target")
    source: Source | None = Field(None, description="The file, relative to the site file.")
    target: Target | None = Field(None, description="Its absolute path in the image.")
    mode: Mode | None = Field(None, description='Its mode in octal digits; "0644" when absent.')


class ImageTable(Table):
    """The recipe of one image."""

    role: Literal["station", "installer"] | None = Field(
        "station", description="Whether stations boot it, or machines that become servers."
    )
    source: Literal["recipe", "server"] | None = Field(
        "recipe", description="A fresh Debian tree, or this server's own tree as LTSP does it."
    )
    suite: Literal["bookworm", "trixie"] | None = Field(
        "bookworm", description="The Debian release."
    )
    kernel: Kernel | None = Field(
        "linux-image-amd64", description="The package of the stations' kernel."
    )
    packages: list[Package] | None = Field(
        None, description="Debian packages, besides those that every station needs."
    )
    files: list[FileTable] | None = Field(None, description="Files copied into the image.")
    scripts: list[Source] | None = Field(
        None,
        description="Programs run inside the tree as root, in order, without a network.",
    )
    ltsp_conf: Source | None = Field(
        None, description="An ltsp.conf for the image, relative to the site file."
    )
    seal: bool | None = Field(
        False, description="Put dm-verity below squashfs in the station's kernel too."
    )
    compression: Compression | None = Field(
        3, description="The zstd level, 1 (fast) to 22 (small)."
    )


class CloneTable(Table):
    """How a server is copied to a new one."""

    exclude: list[Excluded] | None = Field(
        None, max_length=256, description="Paths that are not copied, with everything below them."
    )
    layout: Literal["plain", "lvm", "btrfs"] | None = Field(
        "plain", description="What a new server's disk is made of."
    )
    mirror: bool | None = Field(False, description="Whether a new server mirrors two disks.")


class SiteFile(Table):
    """A site: one file from which every server is derived."""

    REQUIRED = ("site", "networks", "servers", "stations", "images")
    site: SiteTable | None = None
    networks: NetworksTable | None = None
    dns: DnsTable | None = None
    time: TimeTable | None = None
    servers: list[ServerTable] | None = Field(
        None, max_length=64, description="The servers, each as [[servers]]."
    )
    stations: StationsTable | None = None
    images: dict[Label, ImageTable] | None = None
    clone: CloneTable | None = None


class _Published(GenerateJsonSchema):
    """JSON Schema as an editor wants it: TOML has no null, and required keys are required."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        if schema.get("default") is None:
            return self.generate_inner(schema["schema"])
        return super().default_schema(schema)

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        made = super().model_schema(schema)
        required = schema["cls"].REQUIRED
        return {**made, "required": list(required)} if required else made


def json_schema() -> dict[str, Any]:
    """The site file as a JSON Schema (draft 2020-12) with every key described."""
    made = SiteFile.model_json_schema(schema_generator=_Published)
    return {"$schema": GenerateJsonSchema.schema_dialect, **made, "title": "ETS site file"}
