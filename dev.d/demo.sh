# Sourced by ./dev: the demonstration.

demo() {
    die "the demo needs the daemon"
}
