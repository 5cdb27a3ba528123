{{- define "vectide.name" -}}
{{- $name := ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) (contains .Chart.Name .Release.Name) -}}
{{- $name | trunc 50 | trimSuffix "-" -}}
{{- end }}

{{- define "vectide.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "vectide.labels" -}}
{{ include "vectide.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "vectide.metadata" -}}
name: {{ include "vectide.name" . }}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "vectide.labels" . | nindent 2 }}
{{- end }}

{{- define "vectide.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "vectide.name" .) }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end -}}
{{- end }}

{{/* A value as the text of an environment variable: Helm reads large whole numbers as 1e+06. */}}
{{- define "vectide.text" -}}
{{- if kindIs "map" . -}}{{ toJson . }}
{{- else if and (kindIs "float64" .) (eq (floor .) .) -}}{{ int64 . }}
{{- else -}}{{ . }}
{{- end -}}
{{- end }}

{{/* VECTIDE_LIMITS__GRACE_S, rounded up. */}}
{{- define "vectide.grace" -}}
{{- get .Values.settings "VECTIDE_LIMITS__GRACE_S" | default 60 | ceil | int -}}
{{- end }}

{{/* The job under which Prometheus knows the replicas: the Service's name. */}}
{{- define "vectide.series" -}}
{namespace={{ .Release.Namespace | quote }},job={{ include "vectide.name" . | quote }}}
{{- end }}

{{/* For probes: what goes behind the port of an httpGet. */}}
{{- define "vectide.scheme" -}}
{{- if .Values.tls.secret }}, scheme: HTTPS{{ end -}}
{{- end }}
