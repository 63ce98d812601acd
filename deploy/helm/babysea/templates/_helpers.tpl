{{- define "babysea.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{/* What selects the pods of one kind of process; call with (dict "root" $ "process" "api"). */}}
{{- define "babysea.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .process }}
{{- end }}

{{- define "babysea.labels" -}}
{{ include "babysea.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "babysea.image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{- define "babysea.serviceAccount" -}}
{{- if .Values.serviceAccount.name }}{{ .Values.serviceAccount.name }}{{ else if .Values.serviceAccount.create }}{{ include "babysea.name" . }}{{ else }}default{{ end }}
{{- end }}

{{/* Settings of a process, as a list of environment variables. */}}
{{- define "babysea.environment" -}}
- {name: BABYSEA_DOMAIN, value: {{ .root.Values.domain | quote }}}
- {name: BABYSEA_REGIONS, value: {{ join "," .root.Values.regions | quote }}}
- {name: STORAGE_URL, value: {{ .root.Values.storageUrl | quote }}}
- {name: MASTER_KEY_FILE, value: /run/secrets/babysea/MASTER_KEY}
{{- range .root.Values.regions }}
- {name: DATABASE_URL_{{ upper . }}_FILE, value: /run/secrets/babysea/DATABASE_URL_{{ upper . }}}
{{- end }}
{{- if .root.Values.secrets.redis }}
- {name: REDIS_URL_FILE, value: /run/secrets/babysea/REDIS_URL}
{{- end }}
{{- with .root.Values.trustedProxies }}
- {name: BABYSEA_TRUSTED_PROXIES, value: {{ join "," . | quote }}}
{{- end }}
{{- if .root.Values.console.enabled }}
- {name: BABYSEA_CONSOLE_ENABLED, value: {{ eq .process "console" | quote }}}
- {name: BABYSEA_CONSOLE_URL, value: {{ printf "https://api.%s.%s" (first .root.Values.regions) .root.Values.domain | quote }}}
{{- end }}
{{- if eq .process "worker" }}
- {name: BABYSEA_WORKER_STOP_S, value: {{ .root.Values.worker.stopSeconds | quote }}}
{{- end }}
{{- range $name, $value := .root.Values.settings }}
- {name: {{ $name }}, value: {{ $value | toString | quote }}}
{{- end }}
{{- end }}

{{/* The spec of a pod but for what follows its container's name; call with root, process, command, resources, grace. */}}
{{- define "babysea.pod" -}}
serviceAccountName: {{ if eq .process "migrate" }}{{ if .root.Values.serviceAccount.create }}default{{ else }}{{ include "babysea.serviceAccount" .root }}{{ end }}{{ else }}{{ include "babysea.serviceAccount" .root }}{{ end }}
automountServiceAccountToken: false
# Links would be variables such as BABYSEA_PORT, which are settings.
enableServiceLinks: false
terminationGracePeriodSeconds: {{ .grace }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- with .root.Values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- if ne .process "migrate" }}
topologySpreadConstraints:
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{ include "babysea.selector" $ | nindent 8 }}
  {{- end }}
{{- end }}
volumes:
  - name: data
    emptyDir: {sizeLimit: 256Mi}
  - name: tmp
    emptyDir: {sizeLimit: 1Gi}
  - name: secrets
    secret:
      secretName: {{ .root.Values.secrets.name }}
      defaultMode: 0440
containers:
  - name: {{ .process }}
    image: {{ include "babysea.image" .root | quote }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    args: {{ toJson .command }}
    env: {{ include "babysea.environment" . | nindent 6 }}
    {{- with .root.Values.secrets.environment }}
    envFrom:
      {{- range . }}
      - secretRef: {name: {{ . }}}
      {{- end }}
    {{- end }}
    resources: {{ toYaml .resources | nindent 6 }}
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities: {drop: [ALL]}
    volumeMounts:
      - {name: data, mountPath: /data}
      - {name: tmp, mountPath: /tmp}
      - {name: secrets, mountPath: /run/secrets/babysea, readOnly: true}
{{- end }}

{{/* Probes at a port: alive while the loop turns, ready with databases and migrations. */}}
{{- define "babysea.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: {{ . }}}
  periodSeconds: 1
  timeoutSeconds: 3
  failureThreshold: 90
livenessProbe:
  httpGet: {path: /healthz, port: {{ . }}}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: {{ . }}}
  periodSeconds: 3
  timeoutSeconds: 4
  failureThreshold: 2
{{- end }}
