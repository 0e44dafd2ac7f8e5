# Sourced by ./dev: the engine, and all of quantd, for aarch64, built here and run by qemu-user.

# Linked statically into the programs. They are unpacked into a folder of the build: the machine's own packages stay as
# they are. C library and compiler come from Debian's cross packages (TEST_PACKAGES).
AARCH64_PACKAGES=(libssl-dev libsodium-dev libmsgpack-dev libjansson-dev libuv1-dev libinih-dev libseccomp-dev)
AARCH64_ROOT=$TOP/build-aarch64-root

# apt with an own state below the root, for packages of another architecture
aarch64_apt() {
    local state=$AARCH64_ROOT/apt
    mkdir -p "$state"/{lists,cache/archives}/partial
    : >"$state/status"
    apt-get -q -o APT::Architecture=arm64 -o APT::Architectures::=arm64 -o APT::Sandbox::User=root \
        -o Dir::State="$state" -o Dir::State::status="$state/status" -o Dir::Cache="$state/cache" "$@"
}

aarch64_fetch() {
    local file
    aarch64_apt update && (cd "$AARCH64_ROOT" && aarch64_apt download "${AARCH64_PACKAGES[@]}") || return 1
    for file in "$AARCH64_ROOT"/*.deb; do dpkg-deb -x "$file" "$AARCH64_ROOT" || return 1; done
    rm -rf "$AARCH64_ROOT"/*.deb "$AARCH64_ROOT/apt"
    # where their .pc files say that they are
    ln -s libuv_a.a "$AARCH64_ROOT/usr/lib/aarch64-linux-gnu/libuv.a" &&
        ln -s aarch64-linux-gnu/libmsgpackc.a "$AARCH64_ROOT/usr/lib/libmsgpackc.a" || return 1
    aarch64_cross_file >"$AARCH64_ROOT/root.ini"
}

aarch64_cross_file() { # where the libraries are; the compiler stands in cross/aarch64-linux-gnu.ini
    cat <<-END
	[binaries]
	pkgconfig = 'pkg-config'
	[built-in options]
	c_args = ['-I$AARCH64_ROOT/usr/include/aarch64-linux-gnu']
	[properties]
	sys_root = '$AARCH64_ROOT'
	pkg_config_libdir = ['$AARCH64_ROOT/usr/lib/aarch64-linux-gnu/pkgconfig']
	END
}

# Compiler, emulator and libraries; 1 and a word of why where they cannot be had.
aarch64_ready() {
    [ "$(uname -m)" = x86_64 ] || { say "aarch64: only on x86_64"; return 1; }
    have apt-get && have qemu-aarch64 && have aarch64-linux-gnu-gcc || { say "aarch64: no cross compiler or qemu"; return 1; }
    if [ ! -f "$AARCH64_ROOT/root.ini" ] || [ ! -e "$AARCH64_ROOT/usr/lib/aarch64-linux-gnu/libuv.a" ]; then
        rm -rf "$AARCH64_ROOT"
        quietly "$AARCH64_ROOT" aarch64_fetch || { say "aarch64: its libraries cannot be had"; return 1; }
    fi
}

# The engine in build-aarch64.
aarch64_build() {
    aarch64_ready && configure build-aarch64 aarch64-linux-gnu-gcc --cross-file cross/aarch64-linux-gnu.ini \
        --cross-file "$AARCH64_ROOT/root.ini" -Dengine_only=true && compile build-aarch64
}

# Daemon, worker and clients in build-aarch64-house.
aarch64_house() {
    aarch64_ready && configure build-aarch64-house aarch64-linux-gnu-gcc --cross-file cross/aarch64-linux-gnu.ini \
        --cross-file "$AARCH64_ROOT/root.ini" -Dtests=false -Dsystemd=false -Ddefault_library=static &&
        compile build-aarch64-house
}
