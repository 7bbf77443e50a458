#!/bin/bash
# node-init.sh NAME ADDRESS FOLDER CLUSTER-FOLDER BIN: the first process of a node. It makes the node's own view of the
# machine's file system, then runs containerd, the kubelet and kube-proxy, and reaps. Everything it mounts goes with it.
set -e
name=$1 address=$2 folder=$3 cluster=$4 bin=$5
export PATH=$bin:$PATH

mount -t proc proc /proc
mount --make-rshared /
hostname "$name"
mount -t tmpfs -o size=256m tmpfs /run
mkdir -p /run/lock /run/containerd

# cgroup v1, seen from this cgroup namespace.
umount -R /sys/fs/cgroup 2>/dev/null || true
mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
for controller in cpu cpuacct cpuset memory devices freezer blkio pids; do
    mkdir "/sys/fs/cgroup/$controller"
    mount -t cgroup -o "$controller" cgroup "/sys/fs/cgroup/$controller"
done
mkdir /sys/fs/cgroup/systemd
mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
mount -t bpf bpf /sys/fs/bpf 2>/dev/null || true

# What a machine of its own would have to itself.
for path in /var/lib/kubelet /var/lib/containerd /var/lib/castgate /var/log/pods /var/log/containers /etc/cni; do
    private=$folder/root$path
    mkdir -p "$path" "$private"
    mount --bind "$private" "$path"
done
mount --make-rshared /var/lib/kubelet
printf '127.0.0.1 localhost\n%s %s\n' "$address" "$name" > "$folder/hosts"
mount --bind "$folder/hosts" /etc/hosts

# The kubelet writes these settings of the whole machine unless they have its values: show it files that do.
for setting in vm/overcommit_memory=1 kernel/panic=10 kernel/panic_on_oops=1; do
    file=$folder/sysctl.$(basename "${setting%=*}")
    echo "${setting#*=}" > "$file"
    mount --bind "$file" "/proc/sys/${setting%=*}"
done
sysctl -qw net.ipv4.ip_forward=1

# As an init system would: what ends is started again.
keep() {
    local log=$folder/log/$1.log
    while :; do
        "$@" >> "$log" 2>&1 < /dev/null || true
        sleep 1
    done
}

keep containerd -c "$cluster/containerd.toml" &
until [ -S /run/containerd/containerd.sock ] && ctr version > /dev/null 2>&1; do sleep 0.1; done
# The images of a node survive its reboot.
import() {
    if [ ! -e "$folder/imported/$(basename "$1")" ]; then
        ctr -n k8s.io images import "$1" > /dev/null
        touch "$folder/imported/$(basename "$1")"
    fi
}
mkdir -p "$folder/imported"
import "$cluster/images/pause.tar"
# Waited for, but not for ever: a node boots without its API server too.
for _ in $(seq 100); do (: < /dev/tcp/@API_HOST@/@API_PORT@) 2>/dev/null && break; sleep 0.1; done
keep kubelet --config "$cluster/kubelet.yaml" --kubeconfig "$cluster/pki/$name.conf" --hostname-override "$name" \
    --node-ip "$address" --root-dir /var/lib/kubelet &
keep kube-proxy --kubeconfig "$cluster/pki/proxy.conf" --hostname-override "$name" --proxy-mode nftables \
    --cluster-cidr @POD_NETWORK@ --conntrack-max-per-core 0 --conntrack-tcp-timeout-established 0 \
    --conntrack-tcp-timeout-close-wait 0 &
for archive in "$cluster"/images/*.tar; do import "$archive"; done
touch "$folder/ready"
while :; do wait -n 2>/dev/null || sleep 1; done
