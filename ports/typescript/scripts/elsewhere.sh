#!/usr/bin/env bash
# The port where there is no Node: every vector, each guard with its framework, each example that needs no server.
#
#     scripts/elsewhere.sh FOLDER deno|bun|workerd...     # perhaps with a version: deno@2.9; they are installed in FOLDER; after `npm run pretest`
#
# The `python` of the PATH has captoken, as for `npm test`: without it the tests that ask it would be skipped, so that fails.
set -euo pipefail
folder=$(realpath "$1")
shift
cd "$(dirname "$0")/.."
python -c 'import captoken, msgspec'
npm install --prefix "$folder" --no-audit --no-fund --silent "${@/#workerd/miniflare}"

runs() { # the command that runs a program; the one that runs tests
    local name
    $1 build/tests/anywhere.js
    $2 ./build/tests/{http,guarded-mcp,mcp-sessions,ai,signing,engine,overlay,trail}.test.js
    for name in http hono express fastify ai signing overlay trail; do
        $1 "./build/examples/$name.js"
    done
}

for package; do
    runtime=${package%@*}
    program=$folder/node_modules/.bin/$runtime
    case $runtime in
        deno)
            "$program" run --allow-read build/tests/anywhere.js # with no other right
            all="--allow-all --no-config --node-modules-dir=manual"
            runs "$program run $all" "$program test $all --no-check"
            ;;
        # Bun ends a test after 5 s, and some start Python eight times.
        bun) runs "$program run" "$program test --timeout 600000" ;;
        workerd) node scripts/workerd.mjs "$folder" ;;
        *) echo "no runtime $runtime"; exit 2 ;;
    esac
done
