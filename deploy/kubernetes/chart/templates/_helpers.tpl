{{- define "triptych.labels" -}}
app.kubernetes.io/part-of: triptych
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "triptych.selector" -}}
{app.kubernetes.io/part-of: triptych, app.kubernetes.io/instance: {{ .root.Release.Name }}, app.kubernetes.io/component: {{ .component }}}
{{- end }}

{{- define "triptych.workerSelector" -}}
{app.kubernetes.io/part-of: triptych, app.kubernetes.io/instance: {{ .root.Release.Name }}, app.kubernetes.io/component: worker, triptych/group: {{ .name }}}
{{- end }}

{{/* The name of a group's objects. Those of Kubernetes cannot have dots. */}}
{{- define "triptych.groupName" -}}
{{ .root.Release.Name }}-{{ .name | replace "." "-" }}
{{- end }}

{{- define "triptych.image" -}}
{{ .root.Values.image.repository }}-{{ .part }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{- define "triptych.podSecurity" -}}
# Kubernetes' own variables, such as ROUTER_PORT for a Service `router`, would be read as settings.
enableServiceLinks: false
automountServiceAccountToken: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - {name: {{ . }}}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "triptych.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/* Settings as environment variables: text as it is, everything else as JSON. */}}
{{- define "triptych.settings" -}}
{{- range $name, $value := .settings }}
- {name: {{ $.prefix }}_{{ upper $name }}, value: {{ kindIs "string" $value | ternary $value (toJson $value) | quote }}}
{{- end }}
{{- end }}

{{- define "triptych.workerToken" -}}
valueFrom: {secretKeyRef: {name: {{ .Values.workerToken.secret }}, key: worker_token}}
{{- end }}

{{/* The groups of workers, each with its defaults, as JSON. The Job for weights merges those that are `merged`. */}}
{{- define "triptych.groups" -}}
{{- $groups := dict }}
{{- $names := dict }}
{{- range $name, $own := .Values.pools }}
{{- $group := mustMergeOverwrite (deepCopy $.Values.poolDefaults) (deepCopy ($own | default dict)) }}
{{- $_ := set $group "pool" ($group.pool | default $name) }}
{{- $merged := printf "/models/%s" $group.pool }}
{{- $_ := set $group "model" ($group.model | default $merged) }}
{{- /* Rerankers are served as they are published. */}}
{{- $_ := set $group "merged" (and $.Values.weights.enabled (eq $group.model $merged) (not (hasPrefix "rerank" $group.pool))) }}
{{- $object := include "triptych.groupName" (dict "root" $ "name" $name) }}
{{- if hasKey $names $object }}
{{- fail (printf "pools: %s and %s would both be named %s; rename one of them" (get $names $object) $name $object) }}
{{- end }}
{{- $_ := set $names $object $name }}
{{- if and $group.scaling (not $.Values.keda.prometheus) }}
{{- fail (printf "keda.prometheus: name the address of Prometheus, such as http://prometheus-operated.monitoring:9090; pools.%s.scaling needs it" $name) }}
{{- end }}
{{- $_ := set $groups $name $group }}
{{- end }}
{{- toJson $groups }}
{{- end }}

{{/* Peers and ports of name servers. */}}
{{- define "triptych.dnsEgress" -}}
- to:
    - namespaceSelector: {}
      podSelector:
        matchLabels: {k8s-app: kube-dns}
  ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
{{- end }}

{{/* Public addresses: not other pods, and not the cloud's metadata. */}}
{{- define "triptych.publicAddresses" -}}
- ipBlock:
    cidr: 0.0.0.0/0
    except:
      [10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 168.63.129.16/32, 169.254.0.0/16, 172.16.0.0/12, 192.168.0.0/16]
- ipBlock:
    cidr: 2000::/3
{{- end }}
