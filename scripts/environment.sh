# Makes a virtual environment from a hash-locked requirements file. Read by ./nk and ./dev, not run by itself.
#
# provide_environment ROOT DIRECTORY LOCK makes ROOT/DIRECTORY hold what ROOT/LOCK names, and `nightkeep` from
# ROOT/src. It touches nothing outside ROOT, may be called by several processes at once, and is resumed when it
# was interrupted: the copy of the lock file in DIRECTORY is written last and says that the rest is there.

say() { printf '%s\n' "nightkeep: $*" >&2; }

fail() {
    say "$@"
    exit 1
}

# Print the first usable Python (>= 3.11 with venv and ensurepip), or explain what is missing.
# It is run, not only found: version managers put names on the PATH that do not start.
find_python() {
    seen=""
    unfit=""
    for candidate in ${NIGHTKEEP_PYTHON:-python3 python3.13 python3.12 python3.11 python3.14 python}; do
        version=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
        if ! "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            seen="$seen $candidate is $version;"
        elif ! "$candidate" -c 'import venv, ensurepip' 2>/dev/null; then
            unfit="$unfit $candidate ($version)"
        else
            "$candidate" -c 'import sys; print(sys.executable)'
            return 0
        fi
    done
    if [ -n "$unfit" ]; then
        fail "found$unfit, but without the modules venv and ensurepip." \
            "Install them (on Debian and Ubuntu: apt install python3-venv) and run this again."
    fi
    fail "needs Python 3.11 or newer, and found none on the PATH${seen:+ (}${seen%;}${seen:+)}." \
        "Install it, or name one: NIGHTKEEP_PYTHON=/path/to/python3 $0"
}

is_provided() { # ROOT DIRECTORY LOCK
    [ -x "$1/$2/bin/python" ] && cmp -s "$1/$3" "$1/$2/provided.txt"
}

# Take the lock, waiting while a living process holds it. Returns 1 when that process did the work meanwhile.
take_lock() { # ROOT DIRECTORY LOCK
    held="$1/$2.lock"
    waited=0
    while ! mkdir "$held" 2>/dev/null; do
        [ -d "$1" ] && [ -w "$1" ] || fail "cannot write to $1, where $2 belongs"
        [ "$waited" -ne 1 ] || say "another process is setting up $2; waiting for it"
        owner=$(cat "$held/pid" 2>/dev/null || true)
        # No owner's number for three seconds, or a dead owner: it was killed, and the lock is nobody's.
        if { [ -n "$owner" ] && ! kill -0 "$owner" 2>/dev/null; } || { [ -z "$owner" ] && [ "$waited" -ge 3 ]; }; then
            # Whoever moves it away may break it; a second breaker finds nothing to move.
            mv "$held" "$held.dead.$$" 2>/dev/null && rm -rf "$held.dead.$$"
            continue
        fi
        sleep 1
        waited=$((waited + 1))
        if is_provided "$1" "$2" "$3"; then return 1; fi
    done
    echo "$$" >"$held/pid"
    trap 'rm -rf "$held"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
}

release_lock() {
    trap - EXIT INT TERM HUP
    rm -rf "$held"
}

install_checkout() { # ROOT DIRECTORY
    # A relative .pth: the checkout can be moved, and no build backend is needed.
    for site in "$1/$2"/lib/python3*/site-packages; do
        echo "../../../../src" >"$site/nightkeep-checkout.pth"
    done
    cat >"$1/$2/bin/nightkeep" <<'SCRIPT'
#!/bin/sh
exec "$(dirname "$0")/python" -P -m nightkeep "$@"
SCRIPT
    chmod +x "$1/$2/bin/nightkeep"
}

provide_environment() { # ROOT DIRECTORY LOCK
    if is_provided "$1" "$2" "$3"; then return 0; fi
    [ -f "$1/$3" ] || fail "$1/$3 is missing: this is not a whole checkout"
    take_lock "$1" "$2" "$3" || return 0
    if ! is_provided "$1" "$2" "$3"; then
        base_python=$(find_python) || exit 1
        say "setting up $2 with $base_python (once)"
        rm -f "$1/$2/provided.txt"
        "$1/$2/bin/python" -m pip --version >/dev/null 2>&1 || "$base_python" -m venv --clear "$1/$2" >&2 ||
            fail "could not make a virtual environment in $1/$2"
        "$1/$2/bin/python" -m pip install -qq --no-input --disable-pip-version-check --no-warn-script-location \
            --require-hashes -r "$1/$3" </dev/null >&2 ||
            fail "could not install what $3 names (is the package index reachable?)"
        install_checkout "$1" "$2"
        cp "$1/$3" "$1/$2/provided.txt.$$" && mv "$1/$2/provided.txt.$$" "$1/$2/provided.txt"
        say "ready"
    fi
    release_lock
}
