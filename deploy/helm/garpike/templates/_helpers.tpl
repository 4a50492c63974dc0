{{- define "garpike.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "garpike.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains (include "garpike.name" .) .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "garpike.name" .) | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "garpike.selectorLabels" -}}
app.kubernetes.io/name: {{ include "garpike.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "garpike.labels" -}}
{{ include "garpike.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "garpike.controller.serviceAccountName" -}}
{{- if .Values.controller.serviceAccount.create -}}
{{- default (printf "%s-controller" (include "garpike.fullname" .)) .Values.controller.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.controller.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "garpike.speaker.serviceAccountName" -}}
{{- if .Values.speaker.serviceAccount.create -}}
{{- default (printf "%s-speaker" (include "garpike.fullname" .)) .Values.speaker.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.speaker.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "garpike.secretName" -}}
{{- default (printf "%s-memberlist" (include "garpike.fullname" .)) .Values.speaker.secretName -}}
{{- end -}}

{{/* image and imagePullPolicy; takes a list of the root and the image of one program */}}
{{- define "garpike.image" -}}
{{- $root := index . 0 -}}
{{- $own := default dict (index . 1) -}}
{{- $common := $root.Values.image -}}
image: "{{ default $common.repository $own.repository }}:{{ default (default $root.Chart.AppVersion $common.tag) $own.tag }}"
imagePullPolicy: {{ default $common.pullPolicy $own.pullPolicy }}
{{- end -}}

{{/* a probe; takes the values of it, the path and the host */}}
{{- define "garpike.probe" -}}
{{- $probe := index . 0 -}}
httpGet:
  path: {{ index . 1 }}
  port: {{ $probe.port }}
  {{- with index . 2 }}
  host: {{ . }}
  {{- end }}
{{ toYaml (omit $probe "enabled" "port") }}
{{- end -}}

{{/* flags that both programs take */}}
{{- define "garpike.args" -}}
- --port={{ .Values.prometheus.metricsPort }}
- --metrics-auth=token-review
{{- with .Values.loadBalancerClass }}
- --lb-class={{ . }}
{{- end }}
{{- with .Values.tls.cipherSuites }}
- --tls-cipher-suites={{ . }}
{{- end }}
{{- with .Values.tls.curvePreferences }}
- --tls-curve-preferences={{ . }}
{{- end }}
{{- with .Values.tls.minVersion }}
- --tls-min-version={{ . }}
{{- end }}
{{- end -}}

{{/* off, dry-run or on; without quotes YAML reads the first and the last as booleans */}}
{{- define "garpike.deadNodeHint" -}}
{{- $value := toString .Values.controller.deadNodeHint -}}
{{- get (dict "true" "on" "false" "off") $value | default $value -}}
{{- end -}}

{{/* what cannot work ends here, with the reason */}}
{{- define "garpike.check" -}}
{{- if or .Values.frrk8s.enabled .Values.speaker.frr.enabled -}}
{{- fail "frrk8s.enabled and speaker.frr.enabled: Garpike does not speak BGP. Set both to false if this cluster uses MetalLB's layer-2 mode only; else keep MetalLB." -}}
{{- end -}}
{{- range $image := list .Values.image .Values.controller.image .Values.speaker.image -}}
{{- $repository := dig "repository" "" (default dict $image) | default "" -}}
{{- if or (hasSuffix "metallb/controller" $repository) (hasSuffix "metallb/speaker" $repository) -}}
{{- fail (printf "image.repository: %s is MetalLB's image, which does not know the arguments of Garpike. Remove the image from your values." $repository) -}}
{{- end -}}
{{- end -}}
{{- if not .Values.speaker.memberlist.enabled -}}
{{- fail "speaker.memberlist.enabled: false is not possible, the speakers find out by it which nodes live. Remove the value." -}}
{{- end -}}
{{- if and .Values.prometheus.podMonitor.enabled .Values.prometheus.serviceMonitor.enabled -}}
{{- fail "prometheus.podMonitor.enabled and prometheus.serviceMonitor.enabled: every metric would be there twice. Set one of them to false." -}}
{{- end -}}
{{- if and .Values.prometheus.rbacPrometheus (or .Values.prometheus.podMonitor.enabled .Values.prometheus.serviceMonitor.enabled) -}}
{{- if not (and .Values.prometheus.serviceAccount .Values.prometheus.namespace) -}}
{{- fail "prometheus.serviceAccount and prometheus.namespace: name the ServiceAccount of your Prometheus, or set prometheus.rbacPrometheus to false." -}}
{{- end -}}
{{- end -}}
{{- end -}}
