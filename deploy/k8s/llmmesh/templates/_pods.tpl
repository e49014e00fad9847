{{/* What every pod shares. Call with (list $ "gateway" $workload). */}}
{{- define "llmmesh.pod" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $workload := index . 2 -}}
serviceAccountName: {{ include "llmmesh.fullname" $root }}-{{ $component }}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: {{ add $workload.preStopSeconds $workload.drainSeconds 10 }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile: {type: RuntimeDefault}
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
topologySpreadConstraints:
  {{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "llmmesh.selector" (list $root $component) | nindent 8 }}
  {{- end }}
{{- with $workload.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- range $key := list "nodeSelector" "tolerations" "affinity" }}
{{- with index $workload $key }}
{{ $key }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{/* What every container shares. Call with $workload. */}}
{{- define "llmmesh.container" -}}
resources:
  {{- toYaml .resources | nindent 2 }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/* Environment of a service. Call with (list $ "gateway" $workload). */}}
{{- define "llmmesh.environment" -}}
{{- $root := index . 0 -}}
{{- $workload := index . 2 -}}
{{- $prefix := printf "LLMMESH_%s_" (upper (index . 1)) -}}
{{- $own := dict
      "mesh_target" (printf "dns:///%s-envoy-mesh:15001" (include "llmmesh.fullname" $root))
      "drain_seconds" $workload.drainSeconds
      "log_level" $root.Values.logLevel -}}
{{- range $name, $value := mergeOverwrite $own (deepCopy $workload.settings) }}
{{- if not (hasKey $workload.secretSettings $name) }}
- name: {{ $prefix }}{{ upper $name }}
  value: {{ ternary $value (toJson $value) (kindIs "string" $value) | quote }}{{/* toString writes 3000000 as 3e+06 */}}
{{- end }}
{{- end }}
{{- range $name, $from := $workload.secretSettings }}
- name: {{ $prefix }}{{ upper $name }}
  valueFrom:
    secretKeyRef: {name: {{ $from.secret }}, key: {{ $from.key }}, optional: {{ $from.optional | default false }}}
{{- end }}
{{- with $root.Values.otlpEndpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ . | quote }}
{{- end }}
{{- if $root.Values.mtls.enabled }}
{{- range $part, $file := dict "CERTIFICATE" "tls.crt" "KEY" "tls.key" "AUTHORITY" "ca.crt" }}
- name: LLMMESH_TLS_{{ $part }}
  value: /etc/llmmesh-tls/{{ $file }}
{{- end }}
{{- end }}
{{- end }}

{{/* Where a pod finds its certificate. Call with $. */}}
{{- define "llmmesh.tls.mount" -}}
{{- if .Values.mtls.enabled -}}
- {name: tls, mountPath: /etc/llmmesh-tls, readOnly: true}
{{- end }}
{{- end }}

{{/* The certificate behind it. Call with (list $ "gateway"). */}}
{{- define "llmmesh.tls.volume" -}}
{{- if (index . 0).Values.mtls.enabled -}}
- name: tls
  secret: {secretName: {{ include "llmmesh.fullname" (index . 0) }}-{{ index . 1 }}-tls, defaultMode: 0440}
{{- end }}
{{- end }}

{{/* What gRPC is spoken over. Call with $. */}}
{{- define "llmmesh.protocol" -}}
{{- ternary "https" "kubernetes.io/h2c" .Values.mtls.enabled -}}
{{- end }}

{{/* Mounts of a service. Call with $workload. */}}
{{- define "llmmesh.mounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: state, mountPath: /var/lib/llmmesh}
{{- if .storage.sharedMemory }}
- {name: shared-memory, mountPath: /dev/shm}
{{- end }}
{{- if .files }}
- {name: files, mountPath: /etc/llmmesh, readOnly: true}
{{- end }}
{{- include "llmmesh.secrets.mounts" . }}
{{- end }}

{{/* Mounts of Secrets as files, a line each. Call with $workload. */}}
{{- define "llmmesh.secrets.mounts" -}}
{{- range $folder, $secret := .secretFiles }}
- {name: secret-{{ $folder }}, mountPath: /etc/llmmesh-secrets/{{ $folder }}, readOnly: true}
{{- end }}
{{- end }}

{{/* Volumes behind the mounts. Call with (list $ "gateway" $workload). */}}
{{- define "llmmesh.volumes" -}}
{{- $workload := index . 2 -}}
- name: tmp
  emptyDir: {sizeLimit: 256Mi}
- name: state
  {{- if $workload.storage.claim }}
  persistentVolumeClaim: {claimName: {{ $workload.storage.claim }}}
  {{- else }}
  emptyDir: {sizeLimit: {{ $workload.storage.size }}}
  {{- end }}
{{- with $workload.storage.sharedMemory }}
- name: shared-memory
  emptyDir: {medium: Memory, sizeLimit: {{ . }}}
{{- end }}
{{- if $workload.files }}
- name: files
  configMap: {name: {{ include "llmmesh.fullname" (index . 0) }}-{{ index . 1 }}}
{{- end }}
{{- include "llmmesh.secrets.volumes" $workload }}
{{- end }}

{{/* The Secrets behind them. Call with $workload. */}}
{{- define "llmmesh.secrets.volumes" -}}
{{- range $folder, $secret := .secretFiles }}
- name: secret-{{ $folder }}
  secret: {secretName: {{ $secret }}, defaultMode: 0440}
{{- end }}
{{- end }}
