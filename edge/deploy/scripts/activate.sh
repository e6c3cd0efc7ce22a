# What runs on the machine: checks first, then its folders and settings, then the agents.
root=${EDGE_ROOT:-}
config=$root/etc/ecs/ecs.config
source=https://amazon-ecs-agent.s3.amazonaws.com/ecs-anywhere-install-latest.sh

fail() {
    echo "$0: $*" >&2
    exit 1
}

check_machine() {
    [ "$(id -u)" = 0 ] || fail "must run as root; use sudo"
    [ -d "$root/run/systemd/system" ] || fail "needs systemd, which does not run here"
    command -v curl >/dev/null || fail "needs curl; install it with the machine's package manager"
    if command -v getenforce >/dev/null && [ "$(getenforce)" = Enforcing ]; then
        fail "SELinux is enforcing, which ECS Anywhere does not support; set it to permissive"
    fi
    case $(uname -m) in
    x86_64) check_processor ;;
    aarch64) ;;
    *) fail "has a processor of type $(uname -m); must be x86_64 or aarch64" ;;
    esac
    [ -z "$GPU" ] || command -v nvidia-smi >/dev/null ||
        fail "the site asks for a GPU, and nvidia-smi is not here; install the driver first"
}

check_processor() {
    [ "$CPU" = baseline ] || return 0
    for flag in $FLAGS; do
        grep -m 1 '^flags' "$root/proc/cpuinfo" | grep -qw "$flag" ||
            fail "this processor lacks $flag, which polars needs; build the image with" \
                "--cpu compat, and activate with --cpu compat"
    done
}

check_nobody_else() {
    [ ! -e "$root/var/lib/ecs/data/agent.db" ] || fail "is registered with ECS already;" \
        "remove it first (edge host remove), since settings count at the first start only"
    # The SSM agent keeps its own credentials in this file, and others there keep it from doing so.
    [ ! -e "$root/root/.aws/credentials" ] ||
        [ -e "$root/var/lib/amazon/ssm/Vault/Store/RegistrationKey" ] ||
        fail "/root/.aws/credentials would get in the way of the machine's own; move it away"
}

make_outbox() {
    mkdir -p "$root$OUTBOX"
    kind=$(stat -f -c %T "$root$OUTBOX")
    case $kind in
    nfs* | smb* | cifs | v9fs | afs | ceph | lustre)
        fail "$OUTBOX is on $kind; an outbox must be on a local disk, change 'outbox' of the site"
        ;;
    esac
    chown "$OWNER:$OWNER" "$root$OUTBOX"
    chmod 0750 "$root$OUTBOX"
}

write_config() {
    mkdir -p "$root/etc/ecs"
    [ ! -e "$config" ] || cp "$config" "$config.before"
    cat >"$config" <<END
# Read at the first start of the agent; docs/hosts.md has the reasons.
ECS_INSTANCE_ATTRIBUTES={"site":"$SITE","replica":"$replica"}
ECS_IMAGE_PULL_BEHAVIOR=prefer-cached
ECS_IMAGE_CLEANUP_INTERVAL=24h
ECS_IMAGE_MINIMUM_CLEANUP_AGE=720h
ECS_NUM_IMAGES_DELETE_PER_CYCLE=1
ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION=1h
ECS_CONTAINER_STOP_TIMEOUT=${STOP}s
ECS_CONTAINER_CREATE_TIMEOUT=10m
ECS_CONTAINER_START_TIMEOUT=10m
ECS_RESERVED_MEMORY=$RESERVED
ECS_AVAILABLE_LOGGING_DRIVERS=$DRIVERS
ECS_LOG_MAX_FILE_SIZE_MB=5
ECS_LOG_MAX_ROLL_COUNT=5
END
}

install_agents() {
    installer=$(mktemp)
    trap 'rm -f "$installer"' EXIT
    curl --fail --silent --show-error --location --proto '=https' --output "$installer" "$source"
    bash "$installer" --region "$REGION" --cluster "$CLUSTER" \
        --activation-id "$ACTIVATION_ID" --activation-code "$ACTIVATION_CODE" \
        ${GPU:+--enable-gpu}
}

replica=${1:-$REPLICA}
[ -n "$replica" ] || fail "is one of several hosts; say which: $0 ${REPLICAS%% *} (or $REPLICAS)"
case " $REPLICAS " in
*" $replica "*) ;;
*) fail "is not a host of site $SITE: got '$replica', the site has $REPLICAS" ;;
esac
check_machine
check_nobody_else
make_outbox
write_config
install_agents
echo "registered as $replica of $SITE; its task comes within minutes of 'edge deploy apply'"
