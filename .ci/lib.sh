# What .ci/run and .ci/long share; both source it from the root of the repository.
#
# A step is a function whose name stands in `steps`. No step writes into the work tree: `cargo package` wants it clean.

# Artefacts are built once and shared by the steps; incremental compilation only costs here.
export CARGO_INCREMENTAL=0
NIGHTLY=${NIGHTLY:-nightly}
CARGO_FUZZ=0.13.2

# Not published: their dependencies may need more than the published crates do.
unpublished=(--exclude kwal-tests --exclude kwal-planted --exclude kwal-public-api --exclude kwal-benches)

# Cargo marks the target directory only if it creates it. Tests find it, and backups skip it, by the mark.
mkdir -p target
[ -e target/CACHEDIR.TAG ] || echo "Signature: 8a477f597d28d172789f06886806bc55" >target/CACHEDIR.TAG
scratch=$(mktemp -d target/ci.XXXXXX)
test_log=$scratch/tests
times=$scratch/times
current="the start"
trap 'finish $?' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# Runs the named steps, or all of `steps`; a step in `more_steps` runs only if it is named.
run_steps() {
    local name
    for name; do
        case " ${steps[*]} ${more_steps[*]-} " in
            *" $name "*) ;;
            *)
                echo "unknown step $name; there are: ${steps[*]} ${more_steps[*]-}" >&2
                return 2
                ;;
        esac
    done
    [ $# != 0 ] || set -- "${steps[@]}"
    for name; do
        step "$name"
    done
}

step() {
    current=$1
    local start=$SECONDS
    local cpu
    read_cpu
    cpu=$cpu_seconds
    printf '\n== %s\n' "$current"
    "$current"
    read_cpu
    printf '%-20s %8d %8d\n' "$current" $((SECONDS - start)) $((cpu_seconds - cpu)) >>"$times"
}

# The processor time of all child processes that have ended. `times` reports those of this shell, so it cannot run in a
# subshell.
read_cpu() {
    times >"$scratch/cpu"
    cpu_seconds=$(awk 'NR == 2 { split($0, t, /[ms ]+/); printf "%d", (t[1] + t[3]) * 60 + t[2] + t[4] }' "$scratch/cpu")
}

# Prints the time of each step and, as the last line, the counts of all tests.
finish() {
    local status=$1
    if [ -s "$times" ]; then
        echo
        time_table
    fi
    if [ "$status" != 0 ]; then
        echo "FAILED: $current" >&2
    elif [ -e "$test_log" ]; then
        awk '/^test result: / { passed += $4; failed += $6; skipped += $8 }
             END { printf "\n%d passed, %d failed, %d skipped\n", passed, failed, skipped }' "$test_log"
    fi
    rm -rf "$scratch"
}

time_table() {
    printf '%-20s %8s %8s\n' step seconds "CPU"
    cat "$times"
    awk '{ wall += $2; cpu += $3 } END { printf "%-20s %8d %8d\n", "total", wall, cpu }' "$times"
}

have() {
    command -v "$1" >/dev/null
}

# Installs what is missing and can be installed: Debian packages as root or by sudo, components of Rust by rustup.
tools() {
    local packages=()
    have cc || packages+=(gcc libc6-dev)
    have c++ || packages+=(g++)
    have make || packages+=(make)
    have javac || packages+=(default-jdk-headless)
    have mvn || packages+=(maven)
    have perl || packages+=(perl)
    have valgrind || packages+=(valgrind)
    have microsocks || packages+=(microsocks)
    if [ ${#packages[@]} != 0 ]; then
        local root=()
        [ "$(id -u)" = 0 ] || root=(sudo -n)
        if ! have apt-get || ! "${root[@]}" true; then
            echo "missing; install them and run this again: ${packages[*]} (names of Debian packages)" >&2
            return 1
        fi
        "${root[@]}" apt-get update -q
        "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${packages[@]}"
    fi
    cargo fmt --version || rustup component add rustfmt
    cargo clippy --version || rustup component add clippy
    nightly
    cargo_fuzz
    rustc --version
    javac -version
}

nightly() {
    rustc "+$NIGHTLY" --version || rustup toolchain install "$NIGHTLY" --profile minimal
}

cargo_fuzz() {
    have cargo-fuzz || cargo install --locked --debug "cargo-fuzz@$CARGO_FUZZ"
}

# Runs tests and keeps their results for the last line.
tests() {
    cargo test "$@" 2>&1 | tee -a "$test_log"
}

# Fuzzes each target for so many seconds, two at a time. Further arguments go to `cargo fuzz`.
#
# kwal-protocol and the targets deny unsafe code, so there is little for a sanitizer to find.
fuzz_targets() {
    local seconds=$1
    shift
    local targets target
    mapfile -t targets < <(cargo "+$NIGHTLY" fuzz list)
    cargo "+$NIGHTLY" fuzz build "$@"
    local logs=$scratch/fuzz
    mkdir -p "$logs"
    printf '%s\n' "${targets[@]}" |
        xargs -P 2 -I TARGET bash -euc '
            target=$1 seconds=$2 out=$3 nightly=$4
            shift 4
            # Findings go to the first directory, so that the seeds stay as they are.
            corpus=("$out/corpus/$target")
            mkdir -p "${corpus[0]}"
            [ ! -d "fuzz/corpus/$target" ] || corpus+=("$PWD/fuzz/corpus/$target")
            if cargo "+$nightly" fuzz run "$@" "$target" "${corpus[@]}" -- "-max_total_time=$seconds" \
                >"$out/$target.log" 2>&1; then
                echo "$target: $(grep "^Done " "$out/$target.log")"
            else
                cat "$out/$target.log"
                exit 255
            fi' fuzz TARGET "$seconds" "$PWD/$logs" "$NIGHTLY" "$@"
}
