#!/usr/bin/env bash
# A chain of wasmd validators on this machine, with the development accounts of `fxn devnet`. chain/README.md explains every parameter.
#
#   scripts/localnet.sh start [--validators 1|4] [--validator N] [--fresh] [--home DIR] [--base-port P]
#   scripts/localnet.sh stop  [--validator N] [--home DIR]
#   scripts/localnet.sh status [--home DIR]
#   scripts/localnet.sh logs [--validator N] [--home DIR]
#
# start makes the chain if there is none, starts the validators that are down and returns when blocks flow on each of them; --fresh forgets
# the chain that is there. status exits with 1 unless every validator answers. Only processes that were started for this home are ended.
# FXN_LOCALNET_HOME and FXN_LOCALNET_BASE_PORT stand in for --home and --base-port.
set -euo pipefail

chain_id=fxn-localnet-1
denom=ustake
gas_price=0.025
# What a validator has, and what it stakes of it. All stake the same, so that each has the same vote.
validator_coins=1000000000000
validator_stake=1000000000
ports_each=10
# A machine that is five times slower still starts within these.
start_seconds=120
stop_seconds=20

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
die() { printf 'localnet: %s\n' "$*" >&2; exit 1; }
say() { printf 'localnet: %s\n' "$*"; }
usage() { sed -n '2,11s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }

folder() { printf '%s/validator-%d' "$home" "$1"; }
# A validator's ports follow each other: RPC, p2p, metrics, gRPC.
rpc_port() { printf '%d' $((base_port + ports_each * $1)); }
p2p_port() { printf '%d' $((base_port + ports_each * $1 + 1)); }
metrics_port() { printf '%d' $((base_port + ports_each * $1 + 2)); }
grpc_port() { printf '%d' $((base_port + ports_each * $1 + 3)); }
url() { printf 'http://127.0.0.1:%d' "$(rpc_port "$1")"; }
all() { seq 0 $((validators - 1)); }

# ---- Processes

# The validator's process, if the one of the pid file is still it: pids are used again, this command line is not.
pid_of() {
  local pid
  [[ -f $(folder "$1")/pid ]] && pid=$(<"$(folder "$1")/pid") && [[ $pid =~ ^[0-9]+$ && -r /proc/$pid/cmdline ]] || return 1
  tr '\0' '\n' <"/proc/$pid/cmdline" 2>/dev/null | grep --quiet --line-regexp --fixed-strings -- "$(folder "$1")" || return 1
  printf '%d' "$pid"
}

launch() {
  local place pid
  place=$(folder "$1")
  # A session of its own: it outlives this script and does not get the terminal's signals.
  setsid "$wasmd" start --log_no_color --home "$place" </dev/null >>"$place/log" 2>&1 9>&- &
  pid=$!
  printf '%d\n' "$pid" >"$place/pid"
  # Until it has become wasmd it is a copy of this script.
  while kill -0 "$pid" 2>/dev/null && ! pid_of "$1" >/dev/null; do sleep 0.02; done
}

stop_one() {
  local pid waited=0
  pid=$(pid_of "$1") || { rm -f "$(folder "$1")/pid"; return 0; }
  kill -TERM "$pid" 2>/dev/null || true
  while pid_of "$1" >/dev/null; do
    if ((waited >= stop_seconds * 10)); then
      kill -KILL "$pid" 2>/dev/null || true
      say "validator $1 did not stop within $stop_seconds s and was killed"
      waited=0
    fi
    sleep 0.1
    waited=$((waited + 1))
  done
  rm -f "$(folder "$1")/pid"
}

# ---- What a node says

# GET over bash's own sockets: curl is not everywhere. Fails after three seconds without an answer.
ask() {
  timeout 3 bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$1" && printf "GET /%s HTTP/1.0\r\nHost: localhost\r\n\r\n" "$2" >&3 && cat <&3' ask \
    "$(rpc_port "$1")" "$2" 2>/dev/null
}
field() { sed -n "s/.*\"$1\": *\"\{0,1\}\([^\",}]*\).*/\1/p" | head -n 1; }
height_of() { ask "$1" status | tr -d '\n' | field latest_block_height; }

is_taken() { timeout 3 bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$1"' taken "$1" 2>/dev/null; }

status() {
  local validator pid answer info down=0
  printf '%-10s %-8s %-24s %-9s %-12s %s\n' validator pid rpc height catching_up app_version
  for validator in $(all); do
    pid=$(pid_of "$validator") || pid=-
    answer=$(ask "$validator" status | tr -d '\n') || answer=
    info=$(ask "$validator" abci_info | tr -d '\n') || info=
    if [[ $pid == - || $answer != *'"latest_block_height"'* ]]; then
      printf '%-10d %-8s %-24s %s\n' "$validator" "$pid" "$(url "$validator")" down
      down=1
    else
      printf '%-10d %-8s %-24s %-9s %-12s %s\n' "$validator" "$pid" "$(url "$validator")" "$(field latest_block_height <<<"$answer")" \
        "$(field catching_up <<<"$answer")" "$(field version <<<"$info")"
    fi
  done
  return "$down"
}

last_words() {
  printf -- '--- the last lines of %s\n' "$(folder "$1")/log" >&2
  # Where wasmd refuses to start, it lists all of its options first.
  grep --invert-match '^ *-' "$(folder "$1")/log" | tail -n 15 >&2
}

# Waits until a validator has made or followed two blocks more than it had when it began to answer.
await_blocks() {
  local validator=$1 first= now
  while ((SECONDS < start_seconds)); do
    pid_of "$validator" >/dev/null || { last_words "$validator"; die "validator $validator has ended"; }
    now=$(height_of "$validator") || now=
    if [[ $now =~ ^[0-9]+$ ]]; then
      ((now > 0)) && first=${first:-$now}
      [[ -z $first ]] || ((now < first + 2)) || return 0
    fi
    sleep 0.1
  done
  last_words "$validator"
  die "validator $validator has no blocks after $start_seconds s"
}

await_answer() {
  while ((SECONDS < start_seconds)); do
    pid_of "$1" >/dev/null || { last_words "$1"; die "validator $1 has ended"; }
    [[ $(ask "$1" status) != *'"latest_block_height"'* ]] || return 0
    sleep 0.1
  done
  last_words "$1"
  die "validator $1 does not answer after $start_seconds s"
}

# ---- A new chain

# Sets the value at a path (`section.key` of a TOML file, `a.b.key` of an indented JSON file). A path that is not there, or is there twice,
# is an error: another version of wasmd may have renamed it.
put() {
  local file=$1 path=$2 value=$3
  case $file in
    *.json)
      awk -v wanted="$path" -v value="$value" '
        function name() { match($0, /"[^"]*"/); return substr($0, RSTART + 1, RLENGTH - 2) }
        /^ *[}\]],?$/ { depth--; sub(/\.[^.]*$/, "", at); print; next }
        /: *[{\[]$/ { depth++; at = at "." name(); print; next }
        /^ *[{\[]$/ { if (depth++) at = at ".-"; print; next }
        /^ *"[^"]*": / && substr(at "." name(), 2) == wanted { found++; sub(/: .*[^,]/, ": " value) }
        { print }
        END { exit found != 1 }' "$file" >"$file.put" || die "$file has not exactly one $path"
      ;;
    *)
      awk -v wanted="$path" -v value="$value" '
        BEGIN { section = "." }
        /^\[/ { section = substr($0, 2, index($0, "]") - 2) "." }
        { name = $0; sub(/ *=.*/, "", name) }
        /^[a-zA-Z_-]+ *=/ && section name == wanted { found++; $0 = name " = " value }
        { print }
        END { exit found != 1 }' "$file" >"$file.put" || die "$file has not exactly one $path"
      ;;
  esac
  mv "$file.put" "$file"
}

# chain/parameters has lines `file path value`.
put_parameters() {
  local name=$1 file=$2 of path value
  while read -r of path value; do
    [[ $of != "$name" ]] || put "$file" "$path" "$value"
  done < <(grep --invert-match '^#' "$root/chain/parameters")
}

# What wasmd says, on stdout or stderr, where it succeeds; else its last word.
said() {
  local answer
  answer=$("$wasmd" "$@" 2>&1) || { printf '%s\n' "$answer" | tail -n 1 >&2; die "wasmd $1 $2 failed"; }
  printf '%s' "$answer"
}

# Makes a validator's home and remembers its address and how others reach it.
make_validator() {
  local number=$1 place=$2 answer
  answer=$(said init "validator-$number" --chain-id "$chain_id" --default-denom "$denom" --home "$place")
  peers+=${peers:+,}$(field node_id <<<"$answer")@127.0.0.1:$(p2p_port "$number")
  answer=$(said keys add validator --keyring-backend test --output json --home "$place")
  addresses+=("$(field address <<<"$answer")")
  put_parameters config.toml "$place/config/config.toml"
  put_parameters app.toml "$place/config/app.toml"
  put "$place/config/app.toml" .minimum-gas-prices "\"$gas_price$denom\""
  put "$place/config/app.toml" grpc.address "\"127.0.0.1:$(grpc_port "$number")\""
  put "$place/config/config.toml" rpc.laddr "\"tcp://127.0.0.1:$(rpc_port "$number")\""
  put "$place/config/config.toml" p2p.laddr "\"tcp://127.0.0.1:$(p2p_port "$number")\""
  put "$place/config/config.toml" instrumentation.prometheus_listen_addr "\"127.0.0.1:$(metrics_port "$number")\""
}

# The development accounts, first, so that they have the numbers that they have on devnet; then the validators.
accounts() {
  local address
  sed '$d' "$root/chain/dev-accounts.json"
  for address in "${addresses[@]}"; do
    printf ',{"address":"%s","coins":[{"denom":"%s","amount":"%s"}]}\n' "$address" "$denom" "$validator_coins"
  done
  printf ']\n'
}

make_chain() {
  local new=$home/.new number genesis
  peers='' addresses=()
  rm -rf "$new" "$home"/validator-* "$home/settings"
  mkdir -p "$new/gentxs"
  genesis=$new/validator-0/config/genesis.json
  for number in $(all); do make_validator "$number" "$new/validator-$number"; done
  put_parameters genesis.json "$genesis"
  accounts >"$new/accounts.json"
  said genesis bulk-add-genesis-account "$new/accounts.json" --home "$new/validator-0" >/dev/null
  for number in $(all); do
    [[ $number == 0 ]] || cp "$genesis" "$new/validator-$number/config/genesis.json"
    said genesis gentx validator "$validator_stake$denom" --chain-id "$chain_id" --keyring-backend test --ip 127.0.0.1 \
      --home "$new/validator-$number" --output-document "$new/gentxs/$number.json" >/dev/null
  done
  said genesis collect-gentxs --gentx-dir "$new/gentxs" --home "$new/validator-0" >/dev/null
  for number in $(all); do
    [[ $number == 0 ]] || cp "$genesis" "$new/validator-$number/config/genesis.json"
    put "$new/validator-$number/config/config.toml" p2p.persistent_peers "\"$peers\""
  done
  rm -r "$new/gentxs" "$new/accounts.json"
  mv "$new"/validator-* "$home/"
  rmdir "$new"
  # Written last: without it there is no chain.
  printf 'validators %d\nbase_port %d\nwasmd %s\n' "$validators" "$base_port" "$version" >"$home/settings"
}

# ---- Commands

setting() { sed -n "s/^$1 //p" "$home/settings"; }
check_free() {
  local port
  for port in "$(rpc_port "$1")" "$(p2p_port "$1")" "$(metrics_port "$1")" "$(grpc_port "$1")"; do
    ! is_taken "$port" || die "port $port is taken; --base-port takes others (with --fresh, if the chain is there already)"
  done
}

# What the chain in this home was made with; what was asked for has to be the same.
load() {
  local has
  for name in validators base_port; do
    has=$(setting "$name")
    [[ -z ${!name} || ${!name} == "$has" ]] || die "the chain in $home has ${name/_/ } $has; --fresh makes a new one"
    printf -v "$name" '%s' "$has"
  done
}

need_chain() {
  [[ -f $home/settings ]] || die "there is no chain in $home; scripts/localnet.sh start makes one"
  load
  [[ -z $one ]] || ((one < validators)) || die "there is no validator $one: they are 0 to $((validators - 1))"
}

start() {
  local number running=0 asked
  mkdir -p "$home"
  exec 9>"$home/.lock"
  flock 9
  wasmd=$("$root/scripts/wasmd.sh") || exit 1
  version=$("$wasmd" version 2>&1)
  if [[ $fresh == yes && -f $home/settings ]]; then
    forget
  fi
  if [[ -f $home/settings ]]; then
    need_chain
    [[ $(setting wasmd) == "$version" ]] || die "the chain in $home was made with wasmd $(setting wasmd), this is $version; --fresh makes a new one"
  else
    validators=${validators:-1} base_port=${base_port:-26700}
    for number in $(all); do check_free "$number"; done
    make_chain
    need_chain
  fi
  asked=${one:-$(all)}
  for number in $asked; do
    pid_of "$number" >/dev/null || { check_free "$number"; launch "$number"; }
  done
  for number in $(all); do ! pid_of "$number" >/dev/null || running=$((running + 1)); done
  # Blocks need more than two thirds of the votes.
  if ((running * 3 > validators * 2)); then
    for number in $asked; do await_blocks "$number"; done
    say "chain $chain_id, $running of $validators validators, gas $gas_price$denom"
  else
    for number in $asked; do await_answer "$number"; done
    say "chain $chain_id, only $running of $validators validators: there will be no blocks until more are started"
  fi
  for number in $(all); do ! pid_of "$number" >/dev/null || say "validator $number: $(url "$number")"; done
}

# Ends what runs of the old chain, which may have had more validators and other ports, and removes it.
forget() {
  local wanted_validators=$validators wanted_port=$base_port
  validators='' base_port=''
  load
  stop_all
  base_port=${wanted_port:-$base_port} validators=${wanted_validators:-$validators}
  rm -rf "$home"/validator-* "$home/settings"
}

stop_all() {
  local number pid
  for number in $(all); do ! pid=$(pid_of "$number") || kill -TERM "$pid" 2>/dev/null || true; done
  for number in $(all); do stop_one "$number"; done
}

stop() {
  [[ -f $home/settings ]] || { say "there is no chain in $home"; return 0; }
  need_chain
  exec 9>"$home/.lock"
  flock 9
  if [[ -n $one ]]; then stop_one "$one"; else stop_all; fi
}

number() { [[ $2 =~ ^[0-9]+$ ]] || die "$1 needs a number, not $2"; }

[[ $# -ge 1 ]] || usage
command=$1
shift
home=${FXN_LOCALNET_HOME:-$root/.runtime/localnet} validators='' one='' base_port=${FXN_LOCALNET_BASE_PORT:-} fresh=no
while [[ $# -gt 0 ]]; do
  [[ $1 == --fresh || $# -ge 2 ]] || usage
  case $1 in
    --validators) [[ $2 == 1 || $2 == 4 ]] || die "--validators is 1 or 4, not $2"; validators=$2; shift 2 ;;
    --validator) number "$1" "$2"; one=$2; shift 2 ;;
    --home) home=$2; shift 2 ;;
    --base-port) number "$1" "$2"; base_port=$2; shift 2 ;;
    --fresh) fresh=yes; shift ;;
    *) usage ;;
  esac
done
home=$(realpath -m "$home")
case $command in
  start) start ;;
  stop) stop ;;
  status) need_chain; status ;;
  logs) need_chain; tail -n 30 "$(folder "${one:-0}")/log" ;;
  *) usage ;;
esac
