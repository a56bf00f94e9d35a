# Sourced by `ltsp init` on a station, before its own 45-networking.sh (an LTSP drop-in, see
# ltsp(8)). Tells LTSP what the kernel command line says, and keeps the DHCP lease alive.

ets_main() {
    local servers word mac

    # No account list lies in an image: without one there is nothing to merge.
    test -f /etc/ltsp/passwd || PAM_AUTH_TYPE=${PAM_AUTH_TYPE:-0}
    for word in $(cat /proc/cmdline); do
        case "$word" in
            ets.servers=*) servers=${word#*=} ;;
        esac
    done
    test -n "$servers" || return 0
    servers=${servers%%,*}
    SERVER=${SERVER:-${servers%:*}}
    # The address was set by the initramfs. networkd renews its lease, takes over the same
    # address, and never takes it away: the root of this station hangs on it.
    re mkdir -p /run/systemd/network
    cat >/run/systemd/network/10-ets.network <<EOF
[Match]
MACAddress=$MAC_ADDRESS

[Network]
DHCP=ipv4
KeepConfiguration=yes
LinkLocalAddressing=no
IPv6AcceptRA=no

[DHCPv4]
ClientIdentifier=mac
SendHostname=no
UseHostname=no
SendRelease=no
EOF
}
