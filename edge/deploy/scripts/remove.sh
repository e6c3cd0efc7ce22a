# What runs on a machine that is no host any more: who writes is stopped before anything is deleted.
root=${EDGE_ROOT:-}

fail() {
    echo "$0: $*" >&2
    exit 1
}

[ "$(id -u)" = 0 ] || fail "must run as root; use sudo"
if [ -e "$root/etc/systemd/system/edge-standby.service" ]; then
    systemctl disable --now edge-standby
    rm -rf "$root/etc/systemd/system/edge-standby.service" "$root/etc/edge/standby" \
        "$root/usr/local/lib/edge/standby" "$root/var/lib/edge-standby"
    systemctl daemon-reload
fi
systemctl stop ecs amazon-ssm-agent || true
# Tasks of a host that was deregistered by force run on, and nobody watches them.
for container in $(docker ps --quiet --filter "label=com.amazonaws.ecs.cluster=$CLUSTER"); do
    docker stop "$container" >/dev/null
done
if command -v apt-get >/dev/null; then
    apt-get remove --yes amazon-ecs-init amazon-ssm-agent
elif command -v dnf >/dev/null; then
    dnf remove --assumeyes amazon-ecs-init amazon-ssm-agent
else
    yum remove --assumeyes amazon-ecs-init amazon-ssm-agent
fi
rm -rf "$root/var/lib/ecs" "$root/etc/ecs" "$root/var/lib/amazon/ssm" \
    "$root/var/log/ecs" "$root/var/log/amazon/ssm"
echo "removed. $OUTBOX was left as it is; what was not delivered is in there"
