{{/* Names and labels. */}}

{{- define "carillon.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 44 characters: what is put behind it fits a name of 63 (a RabbitmqCluster's pods have the longest). */}}
{{- define "carillon.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 44 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "carillon.name" . -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 44 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "carillon.selectorLabels" -}}
app.kubernetes.io/name: {{ include "carillon.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* Labels of a resource: (list CONTEXT COMPONENT). */}}
{{- define "carillon.labels" -}}
{{- $root := index . 0 -}}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "carillon.selectorLabels" $root }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/component: {{ index . 1 }}
app.kubernetes.io/part-of: carillon
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Labels of a pod: (list CONTEXT COMPONENT). No versions: pods are not restarted for the sake of a label. */}}
{{- define "carillon.podLabels" -}}
{{ include "carillon.selectorLabels" (index . 0) }}
app.kubernetes.io/component: {{ index . 1 }}
app.kubernetes.io/part-of: carillon
{{- with (index . 0).Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The head of a resource's metadata: (list CONTEXT COMPONENT NAME). */}}
{{- define "carillon.metadata" -}}
{{- $root := index . 0 -}}
name: {{ index . 2 }}
namespace: {{ $root.Release.Namespace }}
labels:
  {{- include "carillon.labels" (list $root (index . 1)) | nindent 2 }}
{{- end -}}

{{- define "carillon.serviceAccountName" -}}
{{- $own := ternary (include "carillon.fullname" .) "default" .Values.serviceAccount.create -}}
{{- default $own .Values.serviceAccount.name -}}
{{- end -}}

{{- define "carillon.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}{{ printf "%s@%s" .repository .digest }}
{{- else -}}{{ printf "%s:%s" .repository (default $.Chart.AppVersion .tag) }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "carillon.claimName" -}}
{{- default (printf "%s-data" (include "carillon.fullname" .)) .Values.persistence.existingClaim -}}
{{- end -}}

{{- define "carillon.rabbitmqName" -}}{{ include "carillon.fullname" . }}-rabbitmq{{- end -}}
{{- define "carillon.redisName" -}}{{ include "carillon.fullname" . }}-redis{{- end -}}

{{/* "true" where something else than `replicas` decides how many pods there are. */}}
{{- define "carillon.isScaled" -}}
{{- if or .Values.autoscaling.enabled .Values.keda.enabled -}}true{{- end -}}
{{- end -}}

{{/* The fewest pods that there are meant to be. */}}
{{- define "carillon.minReplicas" -}}
{{- if eq .Values.mode "embedded" -}}1
{{- else if .Values.keda.enabled -}}{{ .Values.keda.minReplicas }}
{{- else if .Values.autoscaling.enabled -}}{{ .Values.autoscaling.minReplicas }}
{{- else -}}{{ .Values.replicas }}
{{- end -}}
{{- end -}}
