{{/* Pods that run Carillon's image: the dispatcher, `carillon init` and the test. */}}

{{/* Environment variables: the file, then the secret settings. */}}
{{- define "carillon.env" -}}
- name: CARILLON_CONFIG
  value: /etc/carillon/carillon.toml
{{- range $name, $source := include "carillon.sources" . | fromJson }}
{{- with $source }}
{{- if .suffix }}
# Kubernetes puts it in below, as there is no shell in the image.
- name: GIVEN_{{ snakecase $name | upper }}
  valueFrom:
    secretKeyRef: {name: {{ .secret }}, key: {{ .key | quote }}}
- name: {{ .env }}
  value: $(GIVEN_{{ snakecase $name | upper }}){{ .suffix }}
{{- else }}
- name: {{ .env }}
  valueFrom:
    secretKeyRef: {name: {{ .secret }}, key: {{ .key | quote }}}
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "carillon.volumeMounts" -}}
- {name: config, mountPath: /etc/carillon, readOnly: true}
{{- if or .Values.ca.configMap .Values.ca.secret }}
- {name: ca, mountPath: /etc/carillon-ca, readOnly: true}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "carillon.volumes" -}}
- name: config
  configMap: {name: {{ include "carillon.fullname" . }}}
{{- with .Values.ca.configMap }}
- name: ca
  configMap: {name: {{ . }}}
{{- end }}
{{- with .Values.ca.secret }}
- name: ca
  secret: {secretName: {{ . }}}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* What all three have in common. */}}
{{- define "carillon.podSpec" -}}
serviceAccountName: {{ include "carillon.serviceAccountName" . }}
automountServiceAccountToken: false
# Variables named after Services could be mistaken for settings.
enableServiceLinks: false
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.dnsConfig }}
dnsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* A pod that runs one command and ends: (list CONTEXT NAME ARGUMENTS). */}}
{{- define "carillon.onceSpec" -}}
{{- $root := index . 0 -}}
{{- include "carillon.podSpec" $root }}
restartPolicy: {{ index . 3 }}
containers:
  - name: {{ index . 1 }}
    image: {{ include "carillon.image" $root }}
    imagePullPolicy: {{ $root.Values.image.pullPolicy }}
    args: {{ index . 2 | toJson }}
    env:
      {{- include "carillon.env" $root | nindent 6 }}
      {{- if eq (index . 1) "test" }}
      - name: CARILLON_API
        value: http://{{ include "carillon.fullname" $root }}:{{ $root.Values.service.port }}
      - name: CARILLON_TOKEN
        valueFrom:
          {{- with (include "carillon.sources" $root | fromJson).adminToken }}
          secretKeyRef: {name: {{ .secret }}, key: {{ .key | quote }}}
          {{- end }}
      {{- end }}
    resources:
      requests: {cpu: 50m, memory: 64Mi}
      limits: {memory: 128Mi}
    securityContext:
      {{- toYaml $root.Values.securityContext | nindent 6 }}
    volumeMounts:
      {{- include "carillon.volumeMounts" $root | nindent 6 }}
volumes:
  {{- include "carillon.volumes" $root | nindent 2 }}
{{- end -}}

{{/* The dispatcher's pod. */}}
{{- define "carillon.podTemplate" -}}
{{- $isEmbedded := eq .Values.mode "embedded" -}}
metadata:
  labels:
    {{- include "carillon.podLabels" (list . "dispatcher") | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    kubectl.kubernetes.io/default-container: carillon
    # A changed configuration restarts pods.
    checksum/config: {{ include "carillon.configFile" . | sha256sum }}
    checksum/secret: {{ include "carillon.secretValues" . | sha256sum }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  {{- include "carillon.podSpec" . | nindent 2 }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if not $isEmbedded }}
  {{- with .Values.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- range . }}
    - {{ toYaml . | nindent 6 | trim }}
      {{- if not .labelSelector }}
      labelSelector:
        matchLabels:
          {{- include "carillon.selectorLabels" $ | nindent 10 }}
          app.kubernetes.io/component: dispatcher
      matchLabelKeys: [pod-template-hash]
      {{- end }}
    {{- end }}
  {{- end }}
  {{- end }}
  terminationGracePeriodSeconds: {{ include "carillon.terminationGracePeriodSeconds" . }}
  containers:
    - name: carillon
      image: {{ include "carillon.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [serve]
      env:
        {{- include "carillon.env" . | nindent 8 }}
      ports:
        - {name: http, containerPort: {{ include "carillon.port" (list . "http") }}, protocol: TCP}
        - {name: ops, containerPort: {{ include "carillon.port" (list . "ops") }}, protocol: TCP}
      {{- range $probe, $path := dict "startup" "/livez" "liveness" "/livez" "readiness" "/readyz" }}
      {{ $probe }}Probe:
        httpGet: {path: {{ $path }}, port: ops}
        {{- toYaml (get $.Values.probes $probe) | nindent 8 }}
      {{- end }}
      {{- with include "carillon.preStopSeconds" . | int }}
      lifecycle:
        preStop: {sleep: {seconds: {{ . }}}}
      {{- end }}
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      securityContext:
        {{- toYaml .Values.securityContext | nindent 8 }}
      volumeMounts:
        {{- include "carillon.volumeMounts" . | nindent 8 }}
        {{- if $isEmbedded }}
        - {name: data, mountPath: {{ .Values.persistence.mountPath }}}
        # Where SQLite sorts what does not fit into memory.
        - {name: tmp, mountPath: /tmp}
        {{- end }}
  volumes:
    {{- include "carillon.volumes" . | nindent 4 }}
    {{- if $isEmbedded }}
    - name: data
      {{- if or .Values.persistence.enabled .Values.persistence.existingClaim }}
      persistentVolumeClaim: {claimName: {{ include "carillon.claimName" . }}}
      {{- else }}
      emptyDir: {}
      {{- end }}
    - name: tmp
      emptyDir: {sizeLimit: 256Mi}
    {{- end }}
{{- end -}}
