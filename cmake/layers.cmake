# The dependency table: one line a folder under src/, and what it may include and link.
# ARCHITECTURE.md draws it for people; tests/lint checks that the code obeys it. Edges are
# transitive: a folder may also use what its dependencies may use.
smol_layer(base)
smol_layer(memory DEPENDS base)
smol_layer(cpu/state DEPENDS base memory)
smol_layer(cpu/decoder DEPENDS base)
smol_layer(cpu/mmu DEPENDS cpu/state)
smol_layer(cpu/interp DEPENDS cpu/state cpu/decoder cpu/mmu)
smol_layer(hypervisor DEPENDS base memory)
smol_layer(hypervisor/kvm DEPENDS hypervisor)
smol_layer(hypervisor/soft DEPENDS hypervisor cpu/interp)
smol_layer(arch/x86_64 DEPENDS memory hypervisor)
smol_layer(storage DEPENDS base)
smol_layer(net DEPENDS base)
smol_layer(net/user DEPENDS net)
smol_layer(devices/bus DEPENDS base memory)
smol_layer(devices/legacy DEPENDS devices/bus)
smol_layer(devices/virtio/queue DEPENDS devices/bus)
smol_layer(devices/virtio/transport DEPENDS devices/virtio/queue)
smol_layer(devices/virtio/console DEPENDS devices/virtio/queue)
smol_layer(devices/virtio/block DEPENDS devices/virtio/queue storage)
smol_layer(devices/virtio/rng DEPENDS devices/virtio/queue)
smol_layer(devices/virtio/vsock DEPENDS devices/virtio/queue)
smol_layer(vmm DEPENDS hypervisor/kvm hypervisor/soft arch/x86_64 storage devices/legacy
           devices/virtio/transport devices/virtio/console devices/virtio/block
           devices/virtio/rng devices/virtio/vsock)
smol_layer(image DEPENDS base)
smol_layer(machines DEPENDS image)
