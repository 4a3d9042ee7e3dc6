{{/* What values have to do with each other. Each sentence says what to do. */}}
{{- define "carillon.check" -}}
{{- $sources := include "carillon.sources" . | fromJson -}}
{{- $isEmbedded := eq .Values.mode "embedded" -}}
{{- if not (hasKey $sources "adminToken") -}}
{{- fail "there is no admin token, and Carillon serves nobody but its own machine without one: put it into a Secret and name that in secrets.existingSecret (entry admin-token); to try things out, set config.http.admin_token" -}}
{{- end -}}
{{- if $isEmbedded -}}
  {{- range $name, $setting := dict "brokerUrl" "broker.url" "redisUrl" "redis.url" -}}
    {{- if hasKey $sources $name -}}
    {{- fail (printf "mode is embedded, and %s is given: set mode to production, or take it away" $setting) -}}
    {{- end -}}
  {{- end -}}
  {{- range $what, $is := dict "autoscaling" .Values.autoscaling.enabled "keda" .Values.keda.enabled "evaluation.rabbitmq" .Values.evaluation.rabbitmq.enabled "evaluation.redis" .Values.evaluation.redis.enabled "init" .Values.init.enabled -}}
    {{- if $is -}}
    {{- fail (printf "mode is embedded, which is one pod with one file: turn off %s, or set mode to production" $what) -}}
    {{- end -}}
  {{- end -}}
  {{- $path := get (include "carillon.config" . | fromJson).embedded "path" -}}
  {{- if not (hasPrefix (printf "%s/" .Values.persistence.mountPath) $path) -}}
  {{- fail (printf "config.embedded.path is %s, which is not on the volume: it has to be below %s (persistence.mountPath)" $path .Values.persistence.mountPath) -}}
  {{- end -}}
{{- else -}}
  {{- range $name, $setting := dict "brokerUrl" "broker.url" "redisUrl" "redis.url" -}}
    {{- if not (hasKey $sources $name) -}}
    {{- fail (printf "mode is production, and there is no %s: put it into the Secret that secrets.existingSecret names, or set config.%s; for one pod without servers, set mode to embedded" $setting $setting) -}}
    {{- end -}}
  {{- end -}}
  {{- if and .Values.autoscaling.enabled .Values.keda.enabled -}}
  {{- fail "autoscaling and keda are both enabled, and would undo each other's work: turn one off" -}}
  {{- end -}}
  {{- range $what, $by := dict "autoscaling" .Values.autoscaling "keda" .Values.keda -}}
    {{- if and $by.enabled (gt (int $by.minReplicas) (int $by.maxReplicas)) -}}
    {{- fail (printf "%s.minReplicas is more than %s.maxReplicas" $what $what) -}}
    {{- end -}}
  {{- end -}}
  {{- if and (eq (toString .Values.strategy.maxUnavailable) "0") (eq (toString .Values.strategy.maxSurge) "0") -}}
  {{- fail "strategy.maxUnavailable and strategy.maxSurge are both 0: nothing could be rolled" -}}
  {{- end -}}
  {{- if and .Values.keda.enabled (not .Values.keda.secret) (contains "," (dig "brokerUrl" "value" "" $sources)) -}}
  {{- fail "broker.url names several servers, and KEDA reads one URL only: name a Secret with one of them in keda.secret" -}}
  {{- end -}}
  {{- if and .Values.keda.enabled (not .Values.keda.secret) (dig "brokerUrl" "suffix" "" $sources) -}}
  {{- fail "the URL of RabbitMQ is put together for Carillon, and KEDA reads a whole one: name a Secret with it in keda.secret" -}}
  {{- end -}}
  {{- if and .Values.evaluation.redis.enabled (not .Values.evaluation.redis.password) -}}
  {{- fail "evaluation.redis.password is not set: give it some letters and digits" -}}
  {{- end -}}
{{- end -}}
{{- if and .Values.ca.configMap .Values.ca.secret -}}
{{- fail "ca.configMap and ca.secret are both set: the certificates are in one of them" -}}
{{- end -}}
{{- if eq (include "carillon.port" (list . "http")) (include "carillon.port" (list . "ops")) -}}
{{- fail "config.http.listen and config.ops.listen have the same port: they need two" -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) -}}
{{- fail "ingress.enabled without ingress.hosts: every name that leads to the controller would lead to Carillon" -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not (and .Values.httpRoute.hosts .Values.httpRoute.parentRefs)) -}}
{{- fail "httpRoute.enabled needs httpRoute.hosts and httpRoute.parentRefs: which names lead to Carillon, through which Gateway" -}}
{{- end -}}
{{- if .Values.secrets.externalSecret.enabled -}}
  {{- if not .Values.secrets.externalSecret.secretStoreRef.name -}}
  {{- fail "secrets.externalSecret.secretStoreRef has no name: say which store the settings are in" -}}
  {{- end -}}
{{- end -}}
{{- end -}}
