#!/bin/sh
# Runs the processor of this host while ECS cannot, and makes way for its task. docs/hosts.md says when.
#   standby        watch until told to stop
#   standby check  say what is missing to stand in; exits with 1 if anything is
set -eu

etc=${EDGE_STANDBY:-/etc/edge/standby} # conf, environment, command, secrets
# Sets SITE FAMILY OUTBOX SECRETS OWNER AGENT CONTROL STATE AFTER WITHDRAW EVERY ASK, and run_image.
# shellcheck source=/dev/null
. "$etc/conf"
NAME=$FAMILY-standby
LABEL=com.amazonaws.ecs.task-definition-family # the agent's, on every container of a task
seen=$STATE/image # what ECS ran here last; where there is none, ECS wants no processor here

said=''
say() { # the same words once
    [ "$*" = "$said" ] || echo "$*" >&2
    said=$*
}

clock() { # sets now: seconds, which no one sets back
    read -r now _ </proc/uptime
    now=${now%.*}
}

pause() { # a sleep that a signal ends
    sleep "$1" &
    wait $! || true
}

ask() { # what answers on this host, or nothing
    curl --silent --fail --noproxy '*' --max-time 2 "$AGENT/v1/$1" || true
}

tasks() { # a line for each task of ours that ECS wants to run, as the agent tells it
    ask tasks | tr -d ' \t\n' | tr '{' '\n' | grep -F "\"Family\":\"$FAMILY\"" |
        grep -F '"DesiredStatus":"RUNNING"'
}

container_of_task() {
    docker ps --quiet --filter "label=$LABEL=$FAMILY"
}

task_runs() { # or is about to: its container waits 90 s for the outbox
    [ -n "$(container_of_task)" ] || tasks | grep -Eq '"KnownStatus":"(CREATED|RUNNING)"'
}

held() { # by whoever it is
    for lock in "$OUTBOX"/*/lock "$OUTBOX"/*/*/lock; do
        [ -e "$lock" ] || continue
        code=0
        flock --nonblock --shared --conflict-exit-code 75 "$lock" true || code=$?
        [ "$code" != 75 ] || return 0
    done
    return 1
}

standing() {
    [ -n "$(docker ps --quiet --filter "name=^/$NAME\$")" ]
}

asked=''
connected() { # whether the agent is registered and ECS answers; asks every $ASK seconds only
    if [ -z "$asked" ] || [ $((now - asked)) -ge "$ASK" ]; then
        asked=$now answer=1
        if ask metadata | grep -q '"ContainerInstanceArn": *"'; then
            # Any answer will do, but it must be that of AWS: a captive portal has no certificate.
            curl --silent --output /dev/null --max-time 5 \
                ${HTTP_PROXY:+--proxy "$HTTP_PROXY"} "$CONTROL" && answer=0
        fi
    fi
    return "$answer"
}

note() { # what ECS runs, to run the same
    container=$(container_of_task | head -n 1)
    [ -n "$container" ] || return 0
    image=$(docker inspect --format '{{.Image}}' "$container") || return 0
    variables=$(docker inspect --format '{{range .Config.Env}}{{println .}}{{end}}' "$container") ||
        return 0
    command=$(docker inspect --format '{{range .Config.Cmd}}{{println .}}{{end}}' "$container") ||
        return 0
    if [ "$image" != "$(cat "$seen" 2>/dev/null)" ]; then
        mkdir -p "$STATE"
        echo "$image" >"$seen.new"
        sync "$seen.new"
        mv "$seen.new" "$seen"
        sync "$STATE"
        say "keeps in mind that ECS runs $FAMILY from $image"
    fi
    # Names only: a value may be anybody's.
    other=$(printf '%s\n' "$variables" | grep -Fxv -f - "$etc/environment" | sed 's/=.*//')
    [ "$command" = "$(cat "$etc/command")" ] || other="$other its command"
    # shellcheck disable=SC2086  # one line of them
    [ -z "$other" ] || say "the task has other settings:" $other "(install edge host standby again)"
}

fault() { # why it could not stand in; nothing if it could
    [ -z "$SECRETS" ] || secrets_fault
    if [ ! -s "$seen" ]; then
        echo "ECS has run no task $FAMILY here; deploy it first"
    elif ! docker image inspect "$(cat "$seen")" >/dev/null 2>&1; then
        echo "image $(cat "$seen") is not on this host any more; the next task brings it"
    fi
}

secrets_fault() {
    if [ ! -f "$etc/secrets" ]; then
        echo "$etc/secrets is missing; write NAME=value lines for $SECRETS, chmod 0600"
        return
    fi
    mode=$(stat -c '%a %u' "$etc/secrets")
    [ "$mode" = "600 $OWNER" ] ||
        echo "$etc/secrets must be of mode 0600 and user $OWNER, got mode ${mode% *} and user ${mode#* }"
    for name in $SECRETS; do
        grep -q "^$name=" "$etc/secrets" || echo "$etc/secrets lacks $name"
    done
}

stand_in() {
    why=$(fault)
    if [ -n "$why" ]; then
        say "cannot stand in: $why"
        return
    fi
    docker rm --force "$NAME" >/dev/null 2>&1 || true
    if run_image "$NAME" "$(cat "$seen")" >/dev/null; then
        ours=1 alone=''
        say "stands in for $FAMILY: it buffers, and delivers nothing to AWS, whose credentials only a task has"
    else
        say "cannot stand in: docker does not start $NAME"
    fi
}

leave() {
    say "$1"
    docker stop "$NAME" >/dev/null || true
    docker rm "$NAME" >/dev/null || true
    ours=0 free=''
}

ours=0       # whether our container runs, as far as is known
idle=1       # whether nobody held the outbox a moment ago
free='' alone='' noted=0
look() {
    clock
    if [ "$ours" = 1 ] && standing; then
        if task_runs; then
            leave "makes way: ECS runs $FAMILY again"
        else
            withdraw_unless_wanted
        fi
    elif held; then
        ours=0 free='' alone=''
        if [ "$idle" = 1 ] || [ $((now - noted)) -ge "$ASK" ]; then
            idle=0 noted=$now
            note
        fi
    else
        ours=0 idle=1 free=${free:-$now}
        if [ $((now - free)) -ge "$AFTER" ] && [ -s "$seen" ]; then
            if task_runs; then
                free=''
            elif connected; then
                withdraw_unless_wanted
            else
                stand_in
            fi
        fi
    fi
}

withdraw_unless_wanted() { # ECS could start a task here, and does not
    if connected && ! tasks >/dev/null; then
        alone=${alone:-$now}
        if [ $((now - alone)) -ge "$WITHDRAW" ]; then
            rm -f "$seen"
            if [ "$ours" = 1 ]; then leave "leaves: ECS answers and wants no $FAMILY here"; fi
        fi
    else
        alone=''
    fi
}

case ${1:-watch} in
check)
    why=$(fault)
    if [ -n "$why" ]; then
        echo "$why" >&2
        exit 1
    fi
    ;;
watch)
    trap 'if standing; then leave "told to stop"; fi; exit 0' TERM INT
    why=$(fault)
    say "watches $OUTBOX for $FAMILY${why:+; cannot stand in yet: $why}"
    if standing; then ours=1; fi
    while :; do
        look
        pause "$EVERY"
    done
    ;;
*)
    echo "usage: standby [watch | check]" >&2
    exit 2
    ;;
esac
