// Intrusive doubly linked lists: a flow stands in several at once and leaves each in no time,
// without an allocation.
#pragma once

namespace smol::net::user {

// A place in one list. Tag tells an object's hooks apart.
template <class Tag>
struct Hook {
  Hook* previous = nullptr;
  Hook* next = nullptr;
  bool listed() const { return next != nullptr; }
  void unlink() {
    if (next == nullptr) return;
    previous->next = next;
    next->previous = previous;
    previous = next = nullptr;
  }
};

// T derives from Hook<Tag>.
template <class T, class Tag>
class List {
 public:
  List() { head_.previous = head_.next = &head_; }
  List(const List&) = delete;
  List& operator=(const List&) = delete;

  bool empty() const { return head_.next == &head_; }
  T* front() { return empty() ? nullptr : static_cast<T*>(head_.next); }
  // Nothing when it is in the list already.
  void push(T& item) {
    Hook<Tag>& hook = item;
    if (hook.listed()) return;
    hook.previous = head_.previous;
    hook.next = &head_;
    head_.previous->next = &hook;
    head_.previous = &hook;
  }
  void move_to_back(T& item) {
    static_cast<Hook<Tag>&>(item).unlink();
    push(item);
  }
  T* pop() {
    T* item = front();
    if (item != nullptr) static_cast<Hook<Tag>*>(item)->unlink();
    return item;
  }
  // Calls function for each item that is in the list now; it may unlink and destroy the item.
  template <class F>
  void for_each(F&& function) {
    for (Hook<Tag>* at = head_.next; at != &head_;) {
      Hook<Tag>* next = at->next;
      function(*static_cast<T*>(at));
      at = next;
    }
  }
  // Takes all of the other's items.
  void take(List& other) {
    if (other.empty()) return;
    other.head_.next->previous = head_.previous;
    head_.previous->next = other.head_.next;
    other.head_.previous->next = &head_;
    head_.previous = other.head_.previous;
    other.head_.previous = other.head_.next = &other.head_;
  }

 private:
  Hook<Tag> head_;
};

}  // namespace smol::net::user
