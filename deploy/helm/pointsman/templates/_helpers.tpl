{{- define "pointsman.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}{{- end -}}
{{- end -}}
{{- end -}}

{{- define "pointsman.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "pointsman.labels" -}}
{{ include "pointsman.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "pointsman.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}{{ default (include "pointsman.fullname" .) .Values.serviceAccount.name }}
{{- else -}}{{ required "serviceAccount.name is needed when serviceAccount.create is false" .Values.serviceAccount.name }}{{- end -}}
{{- end -}}

{{- define "pointsman.poolName" -}}
{{- default (include "pointsman.fullname" .) .Values.pool.name -}}
{{- end -}}

{{- define "pointsman.hasConfig" -}}
{{- if or .Values.config.text .Values.config.existingConfigMap (include "pointsman.othersConfigs" .) -}}yes{{- end -}}
{{- end -}}

{{/* The configurations of further pools. */}}
{{- define "pointsman.othersConfigs" -}}
{{- range .Values.pool.others }}{{ .config }}{{ end -}}
{{- end -}}

{{/* What contradicts itself is refused before anything is rendered. */}}
{{- define "pointsman.check" -}}
{{- if and .Values.pool.enabled .Values.selector.labels -}}
{{- fail "pool.enabled and selector.labels exclude each other: set pool.enabled=false to select pods without an InferencePool" -}}
{{- end -}}
{{- if not (or .Values.pool.enabled .Values.selector.labels (hasKey .Values.flags "endpoints-file")) -}}
{{- fail "nothing says which pods are the endpoints: enable pool, or set selector.labels" -}}
{{- end -}}
{{- if and .Values.pool.enabled .Values.pool.create (not .Values.pool.matchLabels) -}}
{{- fail "pool.matchLabels is needed: the labels of the model servers' pods, for example --set pool.matchLabels.app=vllm-llama3 (or pool.create=false for an InferencePool that exists)" -}}
{{- end -}}
{{- if and .Values.config.text .Values.config.existingConfigMap -}}
{{- fail "config.text and config.existingConfigMap exclude each other" -}}
{{- end -}}
{{- if and (include "pointsman.othersConfigs" .) .Values.config.existingConfigMap -}}
{{- fail "config in pool.others and config.existingConfigMap exclude each other" -}}
{{- end -}}
{{- if and .Values.pool.others (not .Values.pool.enabled) -}}
{{- fail "pool.others needs pool.enabled" -}}
{{- end -}}
{{- if and .Values.tls.secretName (not .Values.tls.enabled) -}}
{{- fail "tls.secretName has no effect with tls.enabled=false" -}}
{{- end -}}
{{- if and .Values.httpRoute.create (not .Values.pool.enabled) -}}
{{- fail "httpRoute.create needs pool.enabled: the route's backend is the InferencePool" -}}
{{- end -}}
{{- if and .Values.httpRoute.create (not .Values.httpRoute.parentRefs) -}}
{{- fail "httpRoute.parentRefs is needed: the name of the Gateway, as [{name: inference-gateway}]" -}}
{{- end -}}
{{- range $flag := list "pool-name" "pool-namespace" "endpoint-selector" "endpoint-target-ports" "grpc-port" "grpc-health-port" "metrics-port" "secure-serving" "cert-path" "enable-cert-reload" "ha-enable-leader-election" "metrics-endpoint-auth" "config-file" "config-text" -}}
{{- if hasKey $.Values.flags $flag -}}
{{- fail (printf "flags.%s is set by the chart: use the value of its own (pool, selector, ports, tls, leaderElection, metrics.auth, config)" $flag) -}}
{{- end -}}
{{- end -}}
{{- end -}}
