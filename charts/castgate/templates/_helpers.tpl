{{/* Names in the operator's namespace are fixed: agents know the Service by its name. */}}
{{- define "castgate.namespace" -}}
{{ .Values.operator.namespace.name }}
{{- end }}

{{/* What has no namespace carries the operator's in its name, so that two operators can share a cluster. */}}
{{- define "castgate.clusterName" -}}
castgate-operator-{{ include "castgate.namespace" . }}
{{- end }}

{{- define "castgate.selector" -}}
app.kubernetes.io/name: castgate
app.kubernetes.io/component: operator
{{- end }}

{{/* The labels of every object but for its component. */}}
{{- define "castgate.commonLabels" -}}
app.kubernetes.io/name: castgate
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "castgate.labels" -}}
{{ include "castgate.commonLabels" . }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "castgate.image" -}}
{{ .repository }}:{{ .tag }}
{{- end }}

{{- define "castgate.operatorUser" -}}
system:serviceaccount:{{ include "castgate.namespace" . }}:castgate-operator
{{- end }}

{{/* What the operator does in the namespaces that it watches. */}}
{{- define "castgate.watchedRules" -}}
- apiGroups: [castgate.dev]
  resources: ["*"]
  verbs: [get, list, watch]
- apiGroups: [castgate.dev]
  resources: ["*/status"]
  verbs: [patch, update]
- apiGroups: [castgate.dev]
  resources: [tunnelservers, tunnelrelays, tunneldatabases]
  # Its own finalizer, which is metadata.
  verbs: [patch, update]
- apiGroups: [castgate.dev]
  # An ownerReference that blocks deletion needs it.
  resources: ["*/finalizers"]
  verbs: [update]
- apiGroups: [castgate.dev]
  resources: [tunnelendpoints]
  verbs: [create, patch, delete]
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [configmaps, serviceaccounts, services]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [apps]
  resources: [daemonsets, statefulsets, deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [apps]
  resources: [replicasets]
  verbs: [get, list, watch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}

{{/* What no namespace holds. */}}
{{- define "castgate.clusterRules" -}}
- apiGroups: [""]
  resources: [nodes, namespaces]
  verbs: [get, list, watch]
- apiGroups: [authentication.k8s.io]
  resources: [tokenreviews]
  verbs: [create]
{{- end }}
