#!/bin/sh
# Runs inside the image's tree as root, without a network, after the packages are there.
set -e
sed -i 's/^# *\(de_DE.UTF-8\|en_GB.UTF-8\)/\1/' /etc/locale.gen
locale-gen
echo 'LANG=en_GB.UTF-8' > /etc/default/locale
