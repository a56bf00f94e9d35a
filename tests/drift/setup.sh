# On both servers, before any case: things to be changed.
set -e
export DEBIAN_FRONTEND=noninteractive
useradd --uid 1007 --user-group --shell /bin/bash --comment "Anna" anna
uid=1020
for name in ben carl dora emil fritz; do uid=$((uid + 1)); useradd --uid $uid --user-group "$name"; done
for name in ben carl dora; do echo "$name:word-$name" | chpasswd --crypt-method SHA512 --sha-rounds 5000; done
# the same salt on both, as after a copy
usermod --password '$6$salt$0MqQ2fdJyOiNd9zSCRgWyFpmMHXmN5xKzx8qbRqLIbBY0kXvFzKQ0wVmoPBdDkBCWCHqyqGg4Xo3kjVbEdsaE1' ben
usermod --password '$6$salt$AAAA2fdJyOiNd9zSCRgWyFpmMHXmN5xKzx8qbRqLIbBY0kXvFzKQ0wVmoPBdDkBCWCHqyqGg4Xo3kjVbEdsaE1' carl
usermod --password '$6$salt$BBBB2fdJyOiNd9zSCRgWyFpmMHXmN5xKzx8qbRqLIbBY0kXvFzKQ0wVmoPBdDkBCWCHqyqGg4Xo3kjVbEdsaE1' dora
for name in teachers pupils library; do groupadd "$name"; done
gpasswd --add anna teachers >/dev/null
gpasswd --add fritz pupils >/dev/null

mkdir -p /srv/share
{
    printf '[global]\n  netbios name = %s\n  workgroup = HOUSE\n' "$(uname -n)"
    for share in maths music physics arts; do
        printf '[%s]\n  path = /srv/share\n  read only = yes\n  guest ok = no\n' "$share"
    done
} >/etc/samba/smb.conf

systemctl start cups.service
for queue in library-1 library-2 office attic; do
    lpadmin -p "$queue" -E -v "socket://10.77.3.9/$queue" -L "$queue" -D "$queue"
done

systemctl enable --now cron.service smbd.service >/dev/null 2>&1
printf '5 4 * * * root /usr/local/bin/backup\n10 4 * * * root /usr/local/bin/tidy\n' >/etc/cron.d/house
echo '30 6 * * 1 /usr/local/bin/mail-list' | crontab -u anna -
echo '31 6 * * 1 /usr/local/bin/plan' | crontab -u dora -

for unit in one two three four five six seven; do
    printf '[Unit]\nDescription=%s\n[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n' \
        "$unit" >/etc/systemd/system/house-$unit.service
done
printf '[Timer]\nOnCalendar=daily\n[Install]\nWantedBy=timers.target\n' >/etc/systemd/system/house-one.timer
printf '[Timer]\nOnCalendar=daily\n[Install]\nWantedBy=timers.target\n' >/etc/systemd/system/house-two.timer
systemctl daemon-reload
systemctl enable --quiet --now house-one house-two house-three house-four house-seven house-one.timer house-two.timer

# packages of our own, in two versions
package() {  # NAME VERSION SHELL-LINES
    tree=/var/tmp/$1-$2
    mkdir -p "$tree/DEBIAN" "$tree/usr/bin" "$tree/usr/share/$1" "$tree/lib/systemd/system"
    printf 'Package: %s\nVersion: %s\nArchitecture: all\nMaintainer: house <root@localhost>\nDescription: %s\n' \
        "$1" "$2" "$1" >"$tree/DEBIAN/control"
    printf '#!/bin/sh\necho %s %s\n' "$1" "$2" >"$tree/usr/bin/$1"
    chmod 755 "$tree/usr/bin/$1"
    for number in $(seq 40); do echo "$2 $number" >"$tree/usr/share/$1/$number"; done
    printf '[Service]\nExecStart=/bin/sleep %s\n' "${2#*.}" >"$tree/lib/systemd/system/$1.service"
    dpkg-deb --root-owner-group --build "$tree" "/var/tmp/$1-$2.deb" >/dev/null
}
for name in chalk ruler globe atlas abacus; do package $name 1.1; package $name 1.2; done
dpkg --install /var/tmp/chalk-1.1.deb /var/tmp/ruler-1.1.deb /var/tmp/globe-1.1.deb >/dev/null
update-alternatives --quiet --install /usr/bin/board board /usr/bin/chalk 10
update-alternatives --quiet --install /usr/bin/board board /usr/bin/ruler 20

for name in one two three four five six seven; do echo "tool $name" >/usr/local/bin/$name; chmod 755 /usr/local/bin/$name; done
cp /bin/true /usr/local/bin/capable
setcap cap_net_raw+ep /usr/local/bin/capable
mkdir -p /etc/house/deep/deeper
for name in one two three four acl; do echo "$name" >/etc/house/$name; done
setfacl -m u:anna:r /etc/house/acl
touch /etc/house/deep/deeper/a /etc/house/deep/deeper/b
ln -s one /etc/house/link
nft add table inet house
nft 'add chain inet house guard { type filter hook input priority 10 ; policy accept ; }'
nft add rule inet house guard tcp dport 7001 drop
nft add rule inet house guard tcp dport 7002 drop
nft add table inet spare
nft add chain inet spare one
nft add rule inet spare one tcp dport 7003 drop
mkdir -p /usr/local/share/ca-certificates /mnt/share /etc/iscsi
