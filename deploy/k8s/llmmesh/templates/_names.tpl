{{/* Prefix of every object's name. */}}
{{- define "llmmesh.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $full .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{/* Labels that never change: what selectors ask for. Call with (list $ "gateway"). */}}
{{- define "llmmesh.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: llmmesh
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* All labels. Call with (list $ "gateway"). */}}
{{- define "llmmesh.labels" -}}
{{- $root := index . 0 -}}
{{ include "llmmesh.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: llmmesh
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
{{- end }}

{{/* Name and labels of one object. Call with (list $ "gateway") or (list $ "envoy" "envoy-mesh"). */}}
{{- define "llmmesh.metadata" -}}
{{- $root := index . 0 -}}
name: {{ include "llmmesh.fullname" $root }}-{{ last . }}
labels:
  {{- include "llmmesh.labels" (list $root (index . 1)) | nindent 2 }}
{{- end }}

{{/* One workload's values over the defaults, and its files over the chart's own, as YAML. Call with (list $ "gateway"). */}}
{{- define "llmmesh.workload" -}}
{{- $root := index . 0 -}}
{{- $own := eq (index . 1) "envoy" | ternary $root.Values.envoy (index $root.Values.services (index . 1)) -}}
{{- $workload := mergeOverwrite (deepCopy $root.Values.defaults) (deepCopy (default dict $own)) -}}
{{- $files := dict -}}
{{- range $path, $_ := $root.Files.Glob (printf "files/%s/*" (index . 1)) -}}
{{- $_ := set $files (base $path) ($root.Files.Get $path) -}}
{{- end -}}
{{- $_ := set $workload "files" (mergeOverwrite $files $workload.files) -}}
{{- toYaml $workload -}}
{{- end }}

{{/* The six services and Envoy, as a JSON list. */}}
{{- define "llmmesh.workloads" -}}
{{- append (keys .Values.services | sortAlpha) "envoy" | toJson -}}
{{- end }}

{{/* The image of a service. Call with (list $ "gateway" $workload). */}}
{{- define "llmmesh.image" -}}
{{- $root := index . 0 -}}
{{- $workload := index . 2 -}}
{{- $tag := default $root.Chart.AppVersion $root.Values.image.tag -}}
{{- default (printf "%s/%s:%s%s" $root.Values.image.repository (index . 1) $tag $workload.imageTagSuffix) $workload.image -}}
{{- end }}
