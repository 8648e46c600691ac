#!/usr/bin/env bash
# redis-cli and redis-benchmark against a port: the tools people look at a Redis with.
# Usage: redis-cli.sh --port P [--host H]. Every check has a time limit and looks at what was printed.
set -u

host=127.0.0.1 port=
while [ $# -gt 0 ]; do
  case $1 in
    --host) host=$2; shift 2 ;;
    --port) port=$2; shift 2 ;;
    *) echo "unknown argument: $1" >&2; exit 2 ;;
  esac
done
[ -n "$port" ] || { echo "--port is missing" >&2; exit 2; }

work=$(mktemp -d)
monitor=
trap '[ -z "$monitor" ] || kill "$monitor" 2>/dev/null; rm -rf "$work"' EXIT
run=$(od -An -N4 -tx1 /dev/urandom | tr -d ' \n')
k=cli:$run
passed=0 failed=0

cli() { timeout 20 redis-cli -h "$host" -p "$port" "$@"; }

# check TITLE STATUS-WANTED PATTERN COMMAND...: the output must match the extended regular expression.
# A limit that is expected to end the command (124) is a status like any other.
check() {
  local title=$1 wanted=$2 pattern=$3 got output
  shift 3
  output=$("$@" 2>&1 </dev/null)
  got=$?
  verdict "$title" "$got" "$wanted" "$pattern" "$output"
}

verdict() {
  local title=$1 got=$2 wanted=$3 pattern=$4 output=$5
  if [ "$got" = "$wanted" ] && tr '\r' '\n' <<<"$output" | grep -qE -- "$pattern"; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    printf 'FAIL %s: status %s for %s, wanted /%s/ in:\n%s\n' "$title" "$got" "$wanted" "$pattern" "$(head -c 2000 <<<"$output")"
  fi
}

check "PING" 0 '^PONG$' cli PING
check "SET" 0 '^OK$' cli SET "$k" 'a value'
check "GET" 0 '^a value$' cli GET "$k"
check "GET again, quoted" 0 '^"a value"$' cli --no-raw GET "$k"
check "an error" 0 '^WRONGTYPE ' cli LPUSH "$k" x
check "an error, -e" 1 '^WRONGTYPE ' cli -e LPUSH "$k" x
check "repeating, -r" 0 '^3$' cli -r 3 INCR "$k:n"
check "another database, -n" 0 '^OK$' cli -n 3 SET "$k" three
check "GET there" 0 '^three$' cli -n 3 GET "$k"
check "and not here" 0 '^a value$' cli GET "$k"
cli -n 3 DEL "$k" >/dev/null

cli HSET "$k:h" field value >/dev/null
check "RESP3 map, -3" 0 '^1# "field" => "value"$' cli -3 --no-raw HGETALL "$k:h"
check "RESP2 array, -2" 0 '^1\) "field"$' cli -2 --no-raw HGETALL "$k:h"
check "RESP3 double" 0 '^\(double\) 1.5$' cli -3 --no-raw ZADD "$k:z" INCR 1.5 m
check "RESP3 null" 0 '^\(nil\)$' cli -3 --no-raw GET "$k:none"
check "INFO" 0 '^redis_version:' cli INFO server
check "EVAL" 0 '^7$' cli EVAL 'return 7' 0

seq 1 5000 | awk -v k="$k" '{ key = k ":pipe:" $1; printf "*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n", length(key), key, length($1), $1 }' >"$work/load"
output=$(cli --pipe <"$work/load" 2>&1)
verdict "--pipe" $? 0 'errors: 0, replies: 5000' "$output"
check "what --pipe wrote" 0 '^5000$' cli GET "$k:pipe:5000"

output=$(cli --scan --pattern "$k:pipe:*" | sort -u | wc -l)
verdict "--scan" $? 0 '^5000$' "$output"
check "--bigkeys" 0 'Biggest string found' cli --bigkeys
check "--memkeys" 0 'Biggest string found' cli --memkeys
check "--stat" 124 '^[0-9]+ +[0-9.]+[BKMG] ' timeout 3 stdbuf -oL redis-cli -h "$host" -p "$port" --stat -i 0.3
check "--latency" 0 '^[0-9]+ [0-9]+ [0-9.]+ [0-9]+$' timeout 10 redis-cli -h "$host" -p "$port" --latency --raw
check "--latency-history" 124 'avg: [0-9.]+ \([0-9]+ samples\)' timeout 3 stdbuf -o0 redis-cli -h "$host" -p "$port" --latency-history -i 1 --no-raw

timeout 20 redis-cli -h "$host" -p "$port" MONITOR >"$work/monitor" 2>&1 &
monitor=$!
for _ in $(seq 100); do grep -q '^OK' "$work/monitor" && break; sleep 0.05; done
cli SET "$k:seen" by-monitor >/dev/null
cli GET "$k:seen" >/dev/null
for _ in $(seq 100); do grep -q '"GET"' "$work/monitor" && break; sleep 0.05; done
kill "$monitor" 2>/dev/null
wait "$monitor" 2>/dev/null
monitor=
verdict "MONITOR shows the write" 0 0 "\"SET\" \"$k:seen\" \"by-monitor\"" "$(cat "$work/monitor")"

timeout 20 redis-cli -h "$host" -p "$port" SUBSCRIBE "$k:channel" >"$work/subscribed" 2>&1 &
monitor=$!
for _ in $(seq 100); do grep -q '^1$' "$work/subscribed" && break; sleep 0.05; done
check "PUBLISH" 0 '^1$' cli PUBLISH "$k:channel" news
for _ in $(seq 100); do grep -q news "$work/subscribed" && break; sleep 0.05; done
kill "$monitor" 2>/dev/null
wait "$monitor" 2>/dev/null
monitor=
verdict "SUBSCRIBE hears it" 0 0 '^news$' "$(cat "$work/subscribed")"

# Every default test prints its line, and none an error.
output=$(timeout 120 redis-benchmark -h "$host" -p "$port" -q -n 20000 -P 16 2>&1)
status=$?
for test in PING_INLINE PING_MBULK SET GET INCR LPUSH RPUSH LPOP RPOP SADD HSET SPOP ZADD ZPOPMIN LRANGE_600 MSET; do
  verdict "redis-benchmark -P 16 $test" $status 0 "^$test.*: [0-9.]+ requests per second" "$output"
done
verdict "redis-benchmark prints no error" 0 "$(grep -ciE '^(error|-?ERR|WARNING)' <<<"$output")" . "$output"
check "redis-benchmark without pipelining" 0 '^GET: [0-9.]+ requests per second' \
  timeout 60 redis-benchmark -h "$host" -p "$port" -q -n 20000 -c 50 -t set,get -r 1000
check "redis-benchmark, RESP3" 0 '^GET: [0-9.]+ requests per second' \
  timeout 60 redis-benchmark -h "$host" -p "$port" -q -n 20000 -3 -P 16 -t get

cli --scan --pattern "$k*" | xargs -r -n 500 timeout 20 redis-cli -h "$host" -p "$port" UNLINK >/dev/null

echo "redis-cli $(redis-cli --version | awk '{ print $2 }'): $passed passed, $failed failed"
[ "$failed" = 0 ]
