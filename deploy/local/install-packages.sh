#!/bin/sh
# Installs Debian packages without starting what is in them and without switching it on at boot. Runs as root.
#   sh install-packages.sh PACKAGE...
# What it changes for the time of the installation is put back however it ends.
set -eu

mark='automation-orchestrator: only while packages are installed'
policy=/usr/sbin/policy-rc.d
cluster_folder=/etc/postgresql-common/createcluster.d
cluster=$cluster_folder/zz-automation-orchestrator.conf
units='postgresql.service rabbitmq-server.service epmd.socket epmd.service redis-server.service nginx.service'

restore() {
    if grep -qs "$mark" "$policy"; then rm -f "$policy"; fi
    rm -f "$cluster"
    rmdir --ignore-fail-on-non-empty "$cluster_folder" 2>/dev/null || true
}
trap restore EXIT
trap 'exit 1' INT TERM HUP

# Services are not started on installation; a policy that somebody else set stays as it is.
restore
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\n# %s\nexit 101\n' "$mark" > "$policy"
    chmod 755 "$policy"
fi

# PostgreSQL's package makes no cluster of its own.
mkdir -p "$cluster_folder"
printf '# %s\ncreate_main_cluster = false\n' "$mark" > "$cluster"

enabled_units() {
    for unit in $units; do
        if [ "$(systemctl is-enabled "$unit" 2>/dev/null)" = enabled ]; then echo "$unit"; fi
    done
}
before=" $(enabled_units | tr '\n' ' ') "

export DEBIAN_FRONTEND=noninteractive
apt-get -o DPkg::Lock::Timeout=300 update
apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$@"

# What this installation switched on for the next boot is switched off; what ran before is not touched.
for unit in $(enabled_units); do
    case "$before" in
        *" $unit "*) ;;
        *) systemctl disable "$unit" ;;
    esac
done
