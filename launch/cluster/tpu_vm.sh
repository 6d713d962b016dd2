#!/usr/bin/env bash
# Runs a job on a slice of Cloud TPUs, which a queued resource asks for.
#
#   launch/cluster/tpu_vm.sh run --project=P --zone=us-east5-a --name=ergo --type=v5p-128 \
#       --image=us-docker.pkg.dev/P/ergo/ergo:tpu -- \
#       python -m launch.run_sft --config=... --workdir=/data/run
#   launch/cluster/tpu_vm.sh down --project=P --zone=us-east5-a --name=ergo
#
# `run` asks for the slice if it is not there, waits for it, runs the job in a container on each of
# its machines, and stays until the job has ended. Options:
#   --type      accelerator type; its number counts cores up to v5p, chips from v5e on
#   --runtime   software of the machines; the default is the one that Google names for the type
#   --data      folder of each machine that is /data in the container; nothing by default
#   --restarts  how often the job may start again; 100 by default
#   --spot      take a Spot slice, which Google may take back
#   --dry_run   print the commands and run none
#
# The job starts again in two cases alone: it has left with exit code 75, or Google has taken the
# slice back. Every other code ends this script, with that code.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "$0")/common.sh"

action=${1:-}
case $action in
  run | down) shift ;;
  *) die "the first argument is the action: run or down" ;;
esac
project='' zone='' name='' type='' runtime='' image='' data='' restarts=100 spot=false
read_options "project zone name type runtime image data restarts spot" "$@"
need project zone name
place=(--project="$project" --zone="$zone")
queued=(gcloud compute tpus queued-resources)

if [[ $action == down ]]; then
  run "${queued[@]}" delete "$name" "${place[@]}" --force --quiet
  exit
fi

need type image
((${#job[@]})) || die "the job's command is missing; it comes after --"
[[ $restarts =~ ^[0-9]+$ ]] || die "--restarts=$restarts must be a number"
if [[ -z $runtime ]]; then
  case $type in
    v4-*) runtime=tpu-ubuntu2204-base ;;
    v5p-*) runtime=v2-alpha-tpuv5 ;;
    v5litepod-*) runtime=v2-alpha-tpuv5-lite ;;
    v6e-*) runtime=v2-alpha-tpuv6e ;;
    *) die "--runtime=... is missing: no default is known for --type=$type" ;;
  esac
fi

# Prints the state of the queued resource, such as ACTIVE; nothing if there is none.
state() {
  "${queued[@]}" describe "$name" "${place[@]}" --format='value(state.state)' 2>/dev/null || true
}

ask_for_slice() {
  local create=("${queued[@]}" create "$name" "${place[@]}" --node-id="$name"
    --accelerator-type="$type" --runtime-version="$runtime")
  [[ $spot == false ]] || create+=(--spot)
  run "${create[@]}"
}

wait_for_slice() {
  local now
  while now=$(state) && [[ $now != ACTIVE ]]; do
    case $now in
      FAILED | SUSPENDING | SUSPENDED | '') die "the queued resource $name is ${now:-gone}" ;;
    esac
    echo "$name: $now" >&2
    sleep 30
  done
}

# The host network and the devices belong to the container; a signal gets time to save.
container=(sudo docker run --rm --privileged --net=host --stop-timeout=120)
[[ -z $data ]] || container+=(--volume="$data:/data")
command=$(shown "${container[@]}" "$image" "${job[@]}" --distributed=on)
registry=${image%%/*}
ssh=(gcloud compute tpus tpu-vm ssh "$name" "${place[@]}" --worker=all)
pull="sudo gcloud auth configure-docker $registry --quiet && sudo docker pull $(shown "$image")"

if [[ $dry_run == true ]]; then
  ask_for_slice
  run "${queued[@]}" describe "$name" "${place[@]}" --format='value(state.state)'
  run "${ssh[@]}" --command="$pull"
  run "${ssh[@]}" --command="$command"
  exit
fi

for ((starts = 0; starts <= restarts; starts++)); do
  case $(state) in
    SUSPENDING | SUSPENDED | FAILED)
      "${queued[@]}" delete "$name" "${place[@]}" --force --quiet
      ask_for_slice
      ;;
    '') ask_for_slice ;;
  esac
  wait_for_slice
  code=0
  "${ssh[@]}" --command="$pull" || code=$?
  if ((code == 0)); then
    "${ssh[@]}" --command="$command" || code=$?
  fi
  ((code != 0)) || exit 0
  now=$(state)
  if ((code != RUN_AGAIN)) && [[ $now != SUSPENDING && $now != SUSPENDED ]]; then
    echo "error: the job has ended with code $code; the slice $name is still there" >&2
    exit "$code"
  fi
  echo "$name: interrupted (code $code, slice ${now:-gone}); starting again" >&2
done
echo "error: $name was interrupted more than --restarts=$restarts times" >&2
exit "$RUN_AGAIN"
