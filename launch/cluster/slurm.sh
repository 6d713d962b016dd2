#!/usr/bin/env bash
# Submits a job to Slurm, for machines with NVIDIA GPUs.
#
#   launch/cluster/slurm.sh --nodes=2 --gpus=8 --time=24:00:00 -- \
#       python -m launch.run_sft --config=... --workdir=/shared/run
#
# The folder that this command is given in, its environment and the workdir must be the same on all
# machines. Options:
#   --nodes      machines
#   --gpus       GPUs of each machine; each gets a process of its own
#   --time       longest time in one go; the job saves before it is over, and goes on by itself
#   --cpus       CPU cores of each process; 8 by default
#   --grace      seconds before the end of that time at which the job is told to save; 300 by default
#   --partition, --account  as your site names them
#   --name       of the job; ergo by default
#   --dry_run    print the command and run nothing
#
# What starts the job again, and what does not, is said in slurm.sbatch.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "$0")/common.sh"

nodes='' gpus='' time='' cpus=8 grace=300 partition='' account='' name=ergo
read_options "nodes gpus time cpus grace partition account name" "$@"
need nodes gpus time
((${#job[@]})) || die "the job's command is missing; it comes after --"
for number in nodes gpus cpus grace; do
  [[ ${!number} =~ ^[1-9][0-9]*$ ]] || die "--$number=${!number} must be a number"
done

# SIGTERM goes to the processes of the job, not to the batch script, which waits for them.
submit=(sbatch --job-name="$name" --nodes="$nodes" --ntasks-per-node="$gpus"
  --gpus-per-node="$gpus" --cpus-per-task="$cpus" --time="$time" --signal="TERM@$grace"
  --requeue --open-mode=append --output="$name-%j.log")
[[ -z $partition ]] || submit+=(--partition="$partition")
[[ -z $account ]] || submit+=(--account="$account")
run "${submit[@]}" "$(dirname "$0")/slurm.sbatch" "${job[@]}"
