# Sourced by ./dev: the demonstration. A private daemon in a temporary folder; nothing else of the machine is touched.

DEMO=     # the folder
DEMO_PID= # of the daemon

quantctl() { "$TOP/build/client/cli/quantctl" "$@"; }

# until_true WHAT COMMAND...: tries for ten seconds
until_true() {
    local what=$1 i
    shift
    for ((i = 0; i < 200; i++)); do
        ! "$@" >/dev/null 2>&1 || return 0
        [ -z "$DEMO_PID" ] || kill -0 "$DEMO_PID" 2>/dev/null || break
        sleep 0.05
    done
    cat "$DEMO/quantd.log" >&2
    die "waited in vain for $what"
}

demo_end() {
    kill $(jobs -p) 2>/dev/null || true
    [ -z "$DEMO" ] || rm -rf "$DEMO"
}

demo_folder() {
    DEMO=$(mktemp -d "${TMPDIR:-/tmp}/quantd-demo.XXXXXX")
    trap demo_end EXIT
    mkdir -p "$DEMO"/{models,run,state,cache,config/quantd}
    chmod 700 "$DEMO/run"
    export XDG_RUNTIME_DIR=$DEMO/run XDG_STATE_HOME=$DEMO/state XDG_CACHE_HOME=$DEMO/cache XDG_CONFIG_HOME=$DEMO/config
    unset QUANTD_SOCKET NOTIFY_SOCKET LISTEN_FDS LISTEN_PID
    cat >"$DEMO/config/quantd/quantd.conf" <<-END
	[daemon]
	worker = $(worker_of build)
	[watch]
	quiet = 200ms
	[cache]
	keep_free = 16M
	[root models]
	path = $DEMO/models
	END
}

demo_start() {
    say "a private daemon in $DEMO"
    "$TOP/build/daemon/quantd" --user >"$DEMO/quantd.log" 2>&1 &
    DEMO_PID=$!
    until_true "the daemon" quantctl status
    quantctl status
}

model_is_ready() { quantctl models | grep -q 'tiny-kjv.*ready'; }

demo_drop_model() {
    say "drop a model into the watched folder: models/tiny-kjv.gguf"
    cp models/tiny-kjv.gguf "$DEMO/models/"
    until_true "the model" model_is_ready
    quantctl models
}

demo_quantize() {
    local scheme
    for scheme in q8_0 q4_0; do
        say "open tiny-kjv --scheme $scheme"
        quantctl open tiny-kjv --scheme "$scheme"
    done
    say "the artifact's table: show tiny-kjv:q4_0"
    quantctl show tiny-kjv:q4_0
}

# Two processes map one artifact and read all of it; each then tells what the kernel counts while both map it.
demo_share() {
    local i pids=()
    say "two processes map tiny-kjv:q8_0"
    for i in 1 2; do
        mkfifo "$DEMO/go.$i"
        "$TOP/build/tests/tools/map_artifact" tiny-kjv q8_0 <>"$DEMO/go.$i" >"$DEMO/map.$i" &
        pids+=($!)
    done
    for i in 1 2; do until_true "mapping $i" grep -q maps "$DEMO/map.$i"; done
    for i in 1 2; do
        echo count >"$DEMO/go.$i"
        until_true "count $i" grep -q pss_kib "$DEMO/map.$i"
        cat "$DEMO/map.$i"
    done
    for i in 1 2; do echo end >"$DEMO/go.$i"; done
    wait "${pids[@]}" || die "a process that maps failed"
    demo_is_shared
}

# Each holds about half of the pages and has none of its own.
demo_is_shared() {
    cat "$DEMO"/map.[12] | awk '$1 == "rss_kib" { rss += $2; pss += $4; dirty += $6 }
        END { printf "together: %d KiB mapped, %d KiB of memory (sum of Pss), %d KiB private and dirty\n", rss, pss, dirty
              exit !(rss > 0 && pss <= rss * 0.55 && dirty == 0) }' || die "the memory is not shared"
}

demo_read() {
    local judge="$TOP/build/tests/peers/peer_generate"
    [ -x "$judge" ] && [ -e "$QUANTD_PEERS/libllama.v0.5.0.so" ] || return 0
    say "llama.cpp writes with the served descriptor"
    quantctl open tiny-kjv --scheme q4_0 -- "$judge" {} "And it came to pass" 40
}

demo_stop() {
    say "stop"
    kill -TERM "$DEMO_PID"
    wait "$DEMO_PID" || die "the daemon ended with status $?"
    DEMO_PID=
}

demo() {
    demo_folder
    demo_start
    demo_drop_model
    demo_quantize
    demo_share
    demo_read
    say "verify every byte of the cache"
    quantctl verify
    demo_stop
    say "done: built, signed, shared and verified"
}
