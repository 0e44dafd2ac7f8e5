#!/usr/bin/env bash
# run.sh FOLDER [COMMAND...]: the README's two commands in a Debian 12 that holds nothing but git.
#
# Makes a minimal root in FOLDER (kept; made once), clones this repository's HEAD into it and runs there, each timed,
# COMMAND... (default: "./dev demo" and "./dev test"). Needs root and debootstrap. How this machine reaches Debian's
# archive and npm's registry is read from its own configuration and given to the root; nothing of it stands here.
set -euo pipefail
cd "$(dirname "$0")/../.."
SUITE=bookworm
ROOT=$(realpath -m "$1")
shift
[ $# -gt 0 ] || set -- "./dev demo" "./dev test"

die() { printf 'bare: %s\n' "$*" >&2; exit 1; }

archive() { # where this machine's apt finds Debian
    apt-get indextargets --format '$(REPO_URI)' "Created-By: Packages" "Codename: $SUITE" 2>/dev/null | head -n 1
}

make_root() {
    local mirror
    mirror=$(archive)
    debootstrap --variant=minbase --include=git "$SUITE" "$ROOT" ${mirror:+"$mirror"} >"$ROOT.log" 2>&1 ||
        die "debootstrap failed, see $ROOT.log"
    rm -f "$ROOT/etc/apt/sources.list"
}

give_network() { # this machine's way out: resolver, apt's sources and transport, npm's registry
    local part
    cp -L /etc/resolv.conf /etc/hosts "$ROOT/etc/"
    for part in sources.list sources.list.d auth.conf.d keyrings trusted.gpg.d; do
        [ ! -e "/etc/apt/$part" ] || cp -rL "/etc/apt/$part" "$ROOT/etc/apt/"
    done
    apt-config dump | grep -E '^(Acquire|APT::Get::AllowUnauth)' >"$ROOT/etc/apt/apt.conf.d/90bare" || true
    [ ! -f ~/.npmrc ] || grep -vE '^(cafile|nodedir|prefix)' ~/.npmrc >"$ROOT/root/.npmrc" || true
    if command -v npm >/dev/null; then
        printf 'registry=%s\n' "$(npm config get registry)" >>"$ROOT/root/.npmrc"
        give_certificates "$(npm config get cafile)"
    fi
}

give_certificates() {
    [ -f "$1" ] || return 0
    cp -L "$1" "$ROOT/root/ca.crt"
    printf 'cafile=/root/ca.crt\n' >>"$ROOT/root/.npmrc"
}

clone() {
    rm -rf "$ROOT/root/quantd" "$ROOT/root/quantd.git"
    git clone -q --bare . "$ROOT/root/quantd.git"
    inside 'git clone -q /root/quantd.git /root/quantd'
}

# inside COMMAND: own mounts and own processes, so nothing is left when it ends
inside() {
    unshare --mount --pid --fork --kill-child --propagation private bash -c '
        mount -t proc proc "$1/proc" && mount --rbind /sys "$1/sys" && mount --rbind /dev "$1/dev" &&
            exec chroot "$1" /usr/bin/env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin TERM=dumb bash -c "$2"
    ' bash "$ROOT" "$1"
}

[ "$(id -u)" = 0 ] || die "needs root"
[ -d "$ROOT/etc" ] || { command -v debootstrap >/dev/null || die "needs debootstrap"; make_root; }
give_network
clone
status=0
for command in "$@"; do
    begun=$SECONDS
    inside "cd /root/quantd && $command" || status=1
    printf '== bare: %s: status %s, %s s\n' "$command" "$status" "$((SECONDS - begun))"
done
exit $status
