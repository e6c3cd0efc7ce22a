# What runs on a host once, and again when the site file has changed.
root=${EDGE_ROOT:-}
etc=$root/etc/edge/standby
program=$root/usr/local/lib/edge/standby

fail() {
    echo "$0: $*" >&2
    exit 1
}

[ "$(id -u)" = 0 ] || fail "must run as root; use sudo"
for needed in docker curl flock systemctl; do
    command -v "$needed" >/dev/null || fail "needs $needed; register the host first"
done
grep -qF "\"replica\":\"$REPLICA\"" "$root/etc/ecs/ecs.config" 2>/dev/null ||
    fail "is not host $REPLICA by its /etc/ecs/ecs.config; make the script with --replica"
mkdir -p "$etc" "${program%/*}" "$root/etc/systemd/system"
chmod 0700 "$etc"
conf >"$etc/conf"
environment >"$etc/environment"
command_line >"$etc/command"
standby >"$program.new"
chmod 0755 "$program.new"
mv "$program.new" "$program"
unit >"$root/etc/systemd/system/edge-standby.service"
systemctl daemon-reload
systemctl enable edge-standby
systemctl restart edge-standby
EDGE_STANDBY=$etc "$program" check || echo "installed; that is still missing before it can stand in" >&2
