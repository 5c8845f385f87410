# shellcheck shell=bash
# Holdfast: what the scripts share. Sourced, never run.
#
# Owns: finding out what is missing on a Debian 12 (or later, or Ubuntu) machine and installing it; finding a Rust
#       toolchain that is new enough.
# Promises: asks nothing; does nothing where nothing is missing (so that a second run needs neither network nor root);
#       prints each command that changes the machine.
# Refuses: to guess on systems without apt-get: it says which packages are wanted and goes on with what is there.

# The oldest toolchain that builds the workspace; the same number stands as `rust-version` in Cargo.toml.
HF_RUST_MINOR=95

# fuse3 brings fusermount3 (mounting without being root) and /etc/fuse.conf; libclang is what bindgen reads RocksDB's
# header with; g++ compiles RocksDB.
HF_BUILD_PACKAGES="ca-certificates g++ libclang-dev make pkg-config"
HF_RUN_PACKAGES="fuse3"
# attr and acl are for looking at extended attributes; pjdfstest is built against libacl1-dev, e2fsprogs makes its disk; the
# rest are the programs that the tests drive a drive with.
HF_TEST_PACKAGES="acl attr e2fsprogs faketime git gocryptfs iproute2 libacl1-dev nftables nodejs npm procps restic rsync sqlite3 stress-ng tar"

hf_say() { printf '%s\n' "$*"; }
hf_warn() { printf 'warning: %s\n' "$*" >&2; }
hf_have() { command -v "$1" >/dev/null 2>&1; }

# hf_root COMMAND...: as root, by sudo where we are not root. Returns 77 where neither is possible.
hf_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif hf_have sudo; then sudo -n true 2>/dev/null || hf_say "sudo may ask for your password"; sudo "$@"
    else hf_warn "not root and no sudo: cannot run: $*"; return 77
    fi
}

# hf_missing PACKAGE...: those of the packages that are not installed. A tool that came another way (node from its own
# repository, for instance) counts as its package.
hf_missing() {
    local package out=
    for package in "$@"; do
        case $package in
            nodejs) hf_have node && continue ;;
            npm|git|make|tar|rsync|restic|gocryptfs|sqlite3) hf_have "$package" && continue ;;
            attr) hf_have getfattr && continue ;;
            procps) hf_have ps && continue ;;
            fuse3) hf_have fusermount3 && continue ;;
            g++) hf_have g++ && continue ;;
        esac
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || out="$out $package"
    done
    printf '%s' "${out# }"
}

# hf_apt_update: the list may be old or absent (a fresh container): refreshed once for each run of a script.
hf_apt_update() {
    [ -z "${HF_APT_UPDATED:-}" ] || return 0
    hf_root apt-get update -qq || hf_warn "apt-get update failed"
    HF_APT_UPDATED=1
}

# hf_apt PACKAGE...: installs what is missing of them, in one go.
hf_apt() {
    local missing
    missing=$(hf_missing "$@")
    [ -n "$missing" ] || return 0
    if ! hf_have apt-get; then hf_warn "please install (this system has no apt-get): $missing"; return 77; fi
    # shellcheck disable=SC2086  # a list of words
    hf_apt_install $missing
}

# hf_apt_install PACKAGE...: as they are offered now, older ones that are there replaced.
hf_apt_install() {
    hf_say "installing: $*"
    hf_apt_update
    hf_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# hf_rustc_new_enough RUSTC
hf_rustc_new_enough() {
    local version major minor
    version=$("$1" --version 2>/dev/null | awk '{print $2}') || return 1
    major=${version%%.*}; minor=${version#*.}; minor=${minor%%.*}
    [ -n "$major" ] && [ -n "$minor" ] && { [ "$major" -gt 1 ] || { [ "$major" = 1 ] && [ "$minor" -ge $HF_RUST_MINOR ]; }; }
}

# hf_find_cargo: sets HF_CARGO and puts its folder first in PATH (cargo finds rustc, clippy and rustfmt there).
# Returns 1 where no toolchain is new enough.
hf_find_cargo() {
    local dir
    for dir in "${CARGO_HOME:-$HOME/.cargo}/bin" $(printf '%s' "$PATH" | tr ':' ' ') /usr/bin /usr/local/bin; do
        if [ -x "$dir/cargo" ] && [ -x "$dir/rustc" ] && hf_rustc_new_enough "$dir/rustc"; then
            HF_CARGO=$dir/cargo
            case ":$PATH:" in "$dir:"*|":$dir:"*) ;; *) PATH=$dir:$PATH ;; esac
            export HF_CARGO PATH
            return 0
        fi
    done
    return 1
}

# hf_offers PACKAGE: the version that apt-get would install; nothing where there is none.
hf_offers() {
    apt-cache policy "$1" 2>/dev/null | awk '/Candidate:/ && $2 != "(none)" {print $2}'
}

# hf_install_rust: a toolchain, where none is new enough. Debian 12 with its security updates carries a current one under the
# names rustc-web and cargo-web; elsewhere (Ubuntu, Debian without those updates) it comes from rustup, into this user's
# home.
hf_install_rust() {
    local offered minor
    if hf_have apt-get; then hf_apt_update; fi
    offered=$(hf_offers rustc-web); minor=${offered#1.}; minor=${minor%%.*}
    if [ "${minor:-0}" -ge $HF_RUST_MINOR ] 2>/dev/null; then
        hf_apt_install rustc-web cargo-web || return
        hf_apt_install rustfmt-web || hf_warn "no rustfmt: formatting will not be checked"
    elif [ -n "$(hf_offers rustup)" ] || hf_have rustup; then
        hf_have rustup || hf_apt rustup || return
        hf_say "rustup toolchain install stable (into ${RUSTUP_HOME:-$HOME/.rustup})"
        rustup toolchain install stable --profile minimal --component clippy --component rustfmt || return
        rustup default stable || return
    else
        hf_apt ca-certificates curl || hf_have curl || return
        hf_say "https://sh.rustup.rs: installing Rust into ${CARGO_HOME:-$HOME/.cargo}"
        curl --proto '=https' --tlsv1.2 -sSf --retry 3 --connect-timeout 20 https://sh.rustup.rs |
            sh -s -- -y -q --profile minimal --component clippy --component rustfmt --no-modify-path || return
    fi
    hash -r
}

# hf_install_build_deps: compiler, libclang, and a Rust toolchain where none is new enough. One that a person has is left
# alone.
hf_install_build_deps() {
    hf_apt $HF_BUILD_PACKAGES $HF_RUN_PACKAGES || hf_warn "not all of that could be installed: going on with what is there"
    hf_find_cargo && return
    hf_install_rust || hf_warn "Rust could not be installed"
    hf_find_cargo || { hf_warn "no Rust 1.$HF_RUST_MINOR or newer: get one from https://rustup.rs"; return 1; }
}

# hf_install_test_deps: the programs that tests/run drives. What cannot be had is reported and its tests are skipped.
hf_install_test_deps() {
    hf_apt $HF_TEST_PACKAGES || hf_warn "some test programs are missing: their tests will be skipped"
    return 0
}
