# What the scripts of this folder share: options, messages and dry runs. It is sourced, not run.
# shellcheck shell=bash
# The scripts that source this file read these variables:
# shellcheck disable=SC2034

# A job leaves with this code once it has saved its state after a signal; see docs/reliability.md.
readonly RUN_AGAIN=75

die() {
  echo "error: $*" >&2
  exit 2
}

# Prints a command as a shell would read it.
shown() {
  local line
  printf -v line '%q ' "$@"
  echo "${line% }"
}

# Runs a command; with --dry_run, prints it instead.
run() {
  if [[ $dry_run == true ]]; then
    shown "$@"
  else
    "$@"
  fi
}

# Reads --NAME=VALUE options into variables of the same names, up to `--`; the rest is the job's
# command, which lands in the array `job`.
#   read_options "NAMES" "$@"
# NAMES lists the options that the script knows. `--dry_run` and `--spot` take no value.
read_options() {
  local all="$1 dry_run" known=" $1 dry_run " argument option
  shift
  dry_run=false
  job=()
  while (($#)); do
    argument=$1
    shift
    case $argument in
      --)
        job=("$@")
        return
        ;;
      --*=*)
        option=${argument%%=*}
        option=${option#--}
        [[ $known == *" $option "* && $option != dry_run && $option != spot ]] ||
          die "$argument is unknown; the options are --${all// / --}"
        printf -v "$option" '%s' "${argument#*=}"
        ;;
      --dry_run | --spot)
        [[ $known == *" ${argument#--} "* ]] || die "$argument is unknown here"
        printf -v "${argument#--}" true
        ;;
      *) die "$argument is no option; the job's command comes after --" ;;
    esac
  done
}

# Ends the script unless every variable named has a value.
need() {
  local option
  for option in "$@"; do
    [[ -n ${!option:-} ]] || die "--$option=... is missing"
  done
}
