"""Work cut into tasks that any engine may do, in any order, as often as it likes: receipts tell what is done."""
