# Sourced by ./dev: the engine for aarch64, built here and run by qemu-user.

# Linked statically into the engine. They are unpacked into a folder of the build: the machine's own packages stay as
# they are. C library and compiler come from Debian's cross packages (TEST_PACKAGES).
AARCH64_PACKAGES=(libssl-dev libsodium-dev libmsgpack-dev libjansson-dev)
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

# The engine in build-aarch64; 1 and a word of why where that cannot be had.
aarch64_build() {
    [ "$(uname -m)" = x86_64 ] || { say "aarch64: only on x86_64"; return 1; }
    have apt-get && have qemu-aarch64 && have aarch64-linux-gnu-gcc || { say "aarch64: no cross compiler or qemu"; return 1; }
    if [ ! -f "$AARCH64_ROOT/root.ini" ]; then
        rm -rf "$AARCH64_ROOT"
        quietly "$AARCH64_ROOT" aarch64_fetch || { say "aarch64: its libraries cannot be had"; return 1; }
    fi
    configure build-aarch64 aarch64-linux-gnu-gcc --cross-file cross/aarch64-linux-gnu.ini \
        --cross-file "$AARCH64_ROOT/root.ini" -Dengine_only=true && compile build-aarch64
}
