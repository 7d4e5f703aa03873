{{/* Names are fixed, as IAM's trust policies need them: one install in a namespace. */}}
{{- define "metadata" }}
  name: glacier-gateway
  namespace: {{ .Release.Namespace }}
{{- end }}
{{- define "labels" }}
app.kubernetes.io/name: glacier-gateway
{{- end }}
