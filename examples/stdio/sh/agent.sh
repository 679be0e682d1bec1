#!/bin/sh
# The reference child for the POSIX shell, with jq. It answers as python/agent.py does, but one call
# after the other, and says so (max_in_flight): a call that is cancelled is not noticed, so Muster
# ends the child after a while and starts another one.

# next: the next message as $line, and its pieces as variables, quoted by jq
next() {
  IFS= read -r line || exit 0
  id=null method='no JSON' question='' said='' given=''
  eval "$(printf '%s\n' "$line" | jq -r '@sh "id=\(.id | tojson) method=\(.method // "")
    question=\(.params.question // "") given=\(.params.settings.mark // "")
    said=\(.result.output // .error.message // "")"')"
}

# reply JSON, fail CODE MESSAGE [DATA]: the answer to the message $id
reply() {
  printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$id" "$1"
}
fail() {
  printf '{"jsonrpc":"2.0","id":%s,"error":{"code":%s,"message":"%s"%s}}\n' "$id" "$1" "$2" \
    "${3:+,\"data\":$3}"
}

answer() {
  asked=$line call=$id text=''
  case $question in
    'wait '*)
      sleep "${question#wait }"
      reply '{"text":"waited"}'
      return
      ;;
    busy)
      fail -32000 'too busy' '{"kind":"rate_limited","retry_after":0.01}'
      return
      ;;
    'weather '*)
      city=${question#weather }
      tool get_weather "$city"
      text="$city: $said"
      ;;
  esac
  # The text in pieces, if somebody listens, and as a whole. What comes from outside goes through
  # pipes: it may be longer than an argument of a program.
  printf '%s\n' "$asked" | jq -c --arg mark "$mark" --arg text "$text" '
    .id as $id
    | (if $text != "" then $text else (.params.question | ascii_upcase) + $mark end) as $text
    | ($text | split(" ")) as $words
    | (if .params.on_chunk then range($words | length) else empty end
       | {jsonrpc: "2.0", method: "chunk",
          params: {invoke_id: $id, text: ((if . > 0 then " " else "" end) + $words[.])}}),
      {jsonrpc: "2.0", id: $id,
       result: {text: $text, token_usage: {
         input: ([.params.question | split("\n")[] | split("\t")[] | split(" ")[]
                  | select(. != "")] | length),
         output: ($words | length)}}}'
}

# tool NAME CITY: what it says becomes $said
tool() {
  jq -cn --argjson call "$call" --arg name "$1" --arg city "$2" '
    {jsonrpc: "2.0", id: 1, method: "tool_call",
     params: {invoke_id: $call, name: $name, arguments: {city: $city}}}'
  next
  while [ "$method" ]; do # an answer has no method
    other
    next
  done
}

# All messages but calls.
other() {
  case $method in
    initialize)
      mark=$given
      can='{"streaming":true,"tools":true}'
      reply "{\"protocol_version\":1,\"name\":\"agent.sh\",\"max_in_flight\":1,\"capabilities\":$can}"
      ;;
    ping) reply '{}' ;;
    shutdown)
      reply '{}'
      exit 0
      ;;
    cancel | '') ;; # too late
    'no JSON') fail -32700 'no JSON' ;;
    *) [ "$id" = null ] || fail -32601 'unknown method' ;;
  esac
}

while next; do
  if [ "$method" = invoke ]; then
    answer
  else
    other
  fi
done
