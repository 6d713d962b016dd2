#!/usr/bin/env bash
# Runs a job on TPUs of a GKE cluster as a JobSet.
#
#   launch/cluster/gke.sh --name=ergo --accelerator=tpu-v5p-slice --topology=4x4x4 \
#       --image=us-docker.pkg.dev/P/ergo/ergo:tpu --claim=CLAIM -- \
#       python -m launch.run_sft --config=... --workdir=/data/run
#
# The cluster is the one that kubectl points to. It has the JobSet controller and a node pool of the
# topology; clusters that xpk has made have both. Options:
#   --claim           persistent volume claim that is /data in the container
#   --chips           TPU chips of a machine; 4 by default
#   --namespace       where the JobSet lives; default by default
#   --serviceaccount  whose rights the job has, for its bucket; default by default
#   --restarts        how often the job may start again; 100 by default
#   --dry_run         print the manifest and the command, and run nothing
#
# What starts the job again, and what does not, is said in jobset.yaml.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "$0")/common.sh"

# The manifest names these variables.
# shellcheck disable=SC2034
name='' accelerator='' topology='' image='' claim='' chips=4 namespace=default serviceaccount=default
restarts=100
read_options "name accelerator topology image claim chips namespace serviceaccount restarts" "$@"
need name accelerator topology image claim
((${#job[@]})) || die "the job's command is missing; it comes after --"
[[ $topology =~ ^[1-9][0-9]*(x[1-9][0-9]*)+$ ]] || die "--topology=$topology must be like 4x4x4"
[[ $chips =~ ^[1-9][0-9]*$ ]] || die "--chips=$chips must be a number"
[[ $restarts =~ ^[0-9]+$ ]] || die "--restarts=$restarts must be a number"
total=$((${topology//x/ * }))
((total % chips == 0)) || die "--topology=$topology has $total chips, no multiple of --chips=$chips"
# shellcheck disable=SC2034
pods=$((total / chips))

# A JSON string is a YAML string, so the command's words become a list whatever they hold.
json() {
  local text=$1
  text=${text//\\/\\\\}
  text=${text//\"/\\\"}
  text=${text//$'\n'/\\n}
  text=${text//$'\t'/\\t}
  printf '"%s"' "$text"
}
words=''
for word in "${job[@]}" --distributed=on; do
  words+="${words:+, }$(json "$word")"
done

manifest=$(<"$(dirname "$0")/jobset.yaml")
for field in name namespace accelerator topology image claim chips pods restarts serviceaccount words; do
  manifest=${manifest//"{{$field}}"/"${!field}"}
done
if [[ $dry_run == true ]]; then
  echo "$manifest"
  echo '---'
  echo "# $(shown kubectl apply --filename=-)"
else
  kubectl apply --filename=- <<<"$manifest"
fi
