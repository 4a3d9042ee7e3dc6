{{/* carillon.toml, and where its secret settings come from. */}}

{{/* A value as TOML. JSON's texts, numbers, booleans and arrays are TOML's. */}}
{{- define "carillon.toml" -}}
{{- if kindIs "map" . -}}
{{- $pairs := list -}}
{{- range $key, $value := . -}}
{{- $pairs = append $pairs (printf "%s = %s" $key (include "carillon.toml" $value)) -}}
{{- end -}}
{ {{ join ", " $pairs }} }
{{- else if kindIs "slice" . -}}
{{- $items := list -}}
{{- range . -}}{{- $items = append $items (include "carillon.toml" .) -}}{{- end -}}
[{{ join ", " $items }}]
{{- else -}}
{{- toJson . -}}
{{- end -}}
{{- end -}}

{{/* The configuration in effect, as JSON: `config` and what the chart knows better. */}}
{{- define "carillon.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- if eq .Values.mode "embedded" -}}
{{- $embedded := default dict $config.embedded -}}
{{- if not $embedded.path -}}
{{- $embedded = merge (dict "path" (printf "%s/carillon.db" .Values.persistence.mountPath)) $embedded -}}
{{- end -}}
{{- $config = set $config "embedded" $embedded -}}
{{- end -}}
{{- if or .Values.ca.configMap .Values.ca.secret -}}
{{- range .Values.ca.for -}}
{{- $section := default dict (get $config .) -}}
{{- if $section.ca_file -}}
{{- fail (printf "config.%s.ca_file is set, and ca.for names %s, too: take one of them away" . .) -}}
{{- end -}}
{{- $config = set $config . (merge (dict "ca_file" (include "carillon.caFile" $)) $section) -}}
{{- end -}}
{{- end -}}
{{- toJson $config -}}
{{- end -}}

{{- define "carillon.caFile" -}}/etc/carillon-ca/{{ .Values.ca.key }}{{- end -}}

{{/* The four secret settings: value, section, key. */}}
{{- define "carillon.secretSettings" -}}
- {name: adminToken, section: http, key: admin_token}
- {name: brokerUrl, section: broker, key: url}
- {name: redisUrl, section: redis, key: url}
- {name: keys, section: secrets, key: keys}
{{- end -}}

{{/* The file, without the secret settings. */}}
{{- define "carillon.configFile" -}}
{{- $config := include "carillon.config" . | fromJson -}}
{{- range include "carillon.secretSettings" . | fromYamlArray -}}
{{- $_ := unset (default dict (get $config .section)) .key -}}
{{- end -}}
{{- range $section, $keys := $config }}
{{- if $keys }}
[{{ $section }}]
{{ range $key, $value := $keys -}}
{{ $key }} = {{ include "carillon.toml" $value }}
{{ end }}
{{- end }}
{{- end }}
{{- end -}}

{{/*
Where each secret setting comes from, as JSON: {"adminToken": {"env", "secret", "key", "suffix"?, "value"?}, …}. A value is one
that the chart's own Secret holds. What comes from nowhere is left out; what comes from two places is refused.
*/}}
{{- define "carillon.sources" -}}
{{- $root := . -}}
{{- $own := include "carillon.fullname" . -}}
{{- $secrets := .Values.secrets -}}
{{- $evaluation := .Values.evaluation -}}
{{- $sources := dict -}}
{{- range include "carillon.secretSettings" . | fromYamlArray -}}
  {{- $name := .name -}}
  {{- $setting := printf "config.%s.%s" .section .key -}}
  {{- $env := printf "CARILLON_%s__%s" (upper .section) (upper .key) -}}
  {{- $isServer := has $name (list "brokerUrl" "redisUrl") -}}
  {{- $found := list -}}
  {{- $value := get (default dict (get $root.Values.config .section)) .key -}}
  {{- if $value -}}
    {{- $text := ternary $value (include "carillon.toml" $value) (kindIs "string" $value) -}}
    {{- $found = append $found (dict "from" $setting "secret" $own "key" $env "value" $text) -}}
  {{- end -}}
  {{- with get $secrets.from $name -}}
    {{- $found = append $found (dict "from" (printf "secrets.from.%s" $name) "secret" .name "key" .key "suffix" (default "" .suffix)) -}}
  {{- end -}}
  {{- if and $secrets.externalSecret.enabled (hasKey $secrets.externalSecret.data $name) -}}
    {{- $found = append $found (dict "from" (printf "secrets.externalSecret.data.%s" $name) "secret" (printf "%s-external" $own) "key" $env) -}}
  {{- end -}}
  {{- if and $isServer (eq $root.Values.mode "production") -}}
    {{- if and (eq $name "brokerUrl") $evaluation.rabbitmq.enabled -}}
      {{- $secret := printf "%s-default-user" (include "carillon.rabbitmqName" $root) -}}
      {{- $found = append $found (dict "from" "evaluation.rabbitmq" "secret" $secret "key" "connection_string" "suffix" "%2f") -}}
    {{- else if and (eq $name "redisUrl") $evaluation.redis.enabled -}}
      {{- $url := printf "redis://:%s@%s:6379/0" $evaluation.redis.password (include "carillon.redisName" $root) -}}
      {{- $found = append $found (dict "from" "evaluation.redis" "secret" $own "key" $env "value" $url) -}}
    {{- end -}}
  {{- end -}}
  {{- if gt (len $found) 1 -}}
    {{- fail (printf "%s comes from two places: %s and %s. Take one of them away" $setting (index $found 0).from (index $found 1).from) -}}
  {{- end -}}
  {{- $entry := get $secrets.entries $name -}}
  {{- $isWanted := or (not $isServer) (eq $root.Values.mode "production") -}}
  {{- if and (not $found) $secrets.existingSecret $entry $isWanted -}}
    {{- $found = append $found (dict "from" "secrets.existingSecret" "secret" $secrets.existingSecret "key" $entry) -}}
  {{- end -}}
  {{- with $found -}}
    {{- $_ := set $sources $name (merge (dict "env" $env) (first .)) -}}
  {{- end -}}
{{- end -}}
{{- toJson $sources -}}
{{- end -}}

{{/* The values that the chart's own Secret holds, as JSON: {VARIABLE: TEXT}. */}}
{{- define "carillon.secretValues" -}}
{{- $values := dict -}}
{{- range include "carillon.sources" . | fromJson -}}
{{- if hasKey . "value" -}}{{- $_ := set $values .key .value -}}{{- end -}}
{{- end -}}
{{- toJson $values -}}
{{- end -}}

{{/* Milliseconds of a duration such as 30s, 1h30m or 250ms. */}}
{{- define "carillon.durationMs" -}}
{{- $units := dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000 "d" 86400000 -}}
{{- $total := 0 -}}
{{- range regexFindAll "[0-9]+(ms|[smhd])" . -1 -}}
{{- $unit := regexFind "[a-z]+" . -}}
{{- $total = add $total (mul (regexFind "[0-9]+" . | int64) (get $units $unit)) -}}
{{- end -}}
{{- $total -}}
{{- end -}}

{{/* Seconds before SIGTERM: 0 where Kubernetes cannot wait without a shell in the image. */}}
{{- define "carillon.preStopSeconds" -}}
{{- if semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version -}}{{ int .Values.preStopSeconds }}{{- else -}}0{{- end -}}
{{- end -}}

{{/* shutdown.grace, the wait before SIGTERM, and 15 s in which listeners and connections are closed. */}}
{{- define "carillon.terminationGracePeriodSeconds" -}}
{{- $grace := default dict .Values.config.shutdown | dig "grace" "30s" -}}
{{- $graceSeconds := div (add (include "carillon.durationMs" $grace | int64) 999) 1000 -}}
{{- $least := add $graceSeconds (int .Values.preStopSeconds) 15 -}}
{{- $given := .Values.terminationGracePeriodSeconds -}}
{{- if kindIs "invalid" $given -}}
{{- $least -}}
{{- else if lt (int64 $given) $least -}}
{{- fail (printf "terminationGracePeriodSeconds is %d: pods would be killed while they drain. It has to be at least %d: config.shutdown.grace (%s), preStopSeconds (%d) and 15; or leave it out" (int64 $given) $least $grace (int $.Values.preStopSeconds)) -}}
{{- else -}}
{{- int64 $given -}}
{{- end -}}
{{- end -}}

{{/* The port of a listener: (list CONTEXT SECTION). */}}
{{- define "carillon.port" -}}
{{- $root := index . 0 -}}{{- $section := index . 1 -}}
{{- $listen := get (default dict (get $root.Values.config $section)) "listen" | default "unset" -}}
{{- if regexMatch "^(127\\.|localhost|\\[::1\\]|unset)" $listen -}}
{{- fail (printf "config.%s.listen is %s: Services and probes cannot reach it there. Listen on 0.0.0.0:PORT or [::]:PORT" $section $listen) -}}
{{- end -}}
{{- regexFind "[0-9]+$" $listen -}}
{{- end -}}
